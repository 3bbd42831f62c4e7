//! One end of a stream connection, TCP or UNIX, with what tests do to it.

use crate::address::Address;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A connected stream.
#[derive(Debug)]
pub enum Wire {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A UNIX stream socket.
    Unix(UnixStream),
}

/// How a stream ended, as its reader saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// End of file.
    Orderly,
    /// ECONNRESET.
    Reset,
    /// Another error.
    Error(ErrorKind),
    /// Nothing happened within the limit.
    StillOpen,
}

impl Wire {
    /// Closes so that the peer's kernel sees a reset (SO_LINGER with zero seconds). A UNIX socket just closes.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .expect("SO_LINGER can be set on a TCP socket");
        }
    }

    /// Sends bytes and waits for as many back; `Err` when they differ, end early or take longer than `limit`.
    pub async fn ping(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        let mut back = vec![0; bytes.len()];
        let echo = async {
            self.write_all(bytes).await?;
            self.read_exact(&mut back).await
        };
        timeout(limit, echo)
            .await
            .map_err(|_| io::Error::from(ErrorKind::TimedOut))??;
        if back == bytes {
            Ok(())
        } else {
            Err(io::Error::other("other bytes came back"))
        }
    }

    /// Reads one line.
    pub async fn line(&mut self, limit: Duration) -> io::Result<String> {
        let mut line = Vec::new();
        let read = async {
            loop {
                match self.read_u8().await? {
                    b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                    byte => line.push(byte),
                }
            }
        };
        timeout(limit, read)
            .await
            .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// Reads and discards until the stream ends; gives the bytes seen and the end.
    pub async fn read_to_end_of(&mut self, limit: Duration) -> (u64, End) {
        let mut seen = 0;
        let mut buffer = vec![0; 64 * 1024];
        let read = async {
            loop {
                match self.read(&mut buffer).await {
                    Ok(0) => return End::Orderly,
                    Ok(n) => seen += n as u64,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
                    Err(error) => return End::Error(error.kind()),
                }
            }
        };
        let end = timeout(limit, read).await.unwrap_or(End::StillOpen);
        (seen, end)
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The listener.
    pub to: Address,
    /// The source address.
    pub from: Option<IpAddr>,
    /// SO_SNDBUF, bytes.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, bytes; also bounds the window.
    pub receive_buffer: Option<usize>,
}

impl Dial {
    /// Without any wishes.
    pub fn to(address: &Address) -> Self {
        Self {
            to: address.clone(),
            from: None,
            send_buffer: None,
            receive_buffer: None,
        }
    }

    /// Connects.
    pub async fn connect(&self) -> io::Result<Wire> {
        let to = match &self.to {
            Address::Unix(path) => return UnixStream::connect(path).await.map(Wire::Unix),
            Address::Inet(to) => *to,
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(ip) = self.from {
            socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))?;
        }
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        socket.connect(to).await.map(Wire::Tcp)
    }

    /// Connects, sends nothing, and gives the end; a reset may already come while connecting.
    pub async fn end_without_a_byte(&self, limit: Duration) -> End {
        match self.connect_within(limit).await {
            Ok(mut wire) => wire.read_to_end_of(limit).await.1,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => End::Error(error.kind()),
        }
    }

    /// Connects; an error after `limit`.
    pub async fn connect_within(&self, limit: Duration) -> io::Result<Wire> {
        timeout(limit, self.connect())
            .await
            .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
