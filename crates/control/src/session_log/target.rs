//! Where lines go: a file that may be moved away, or standard error beside the ordinary log.
//!
//! Writing may block or fail for as long as it likes; only the writing thread calls this. Absent on purpose: trying
//! again, counting (`writer`).

use crate::logs::{LineQueue, WriteFailure, write_counted};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An open target.
#[derive(Debug)]
pub(super) enum Target {
    File(LogFile),
    /// Through the thread that writes the ordinary log: each of its writes is whole lines.
    Log {
        queue: LineQueue,
        /// What carries bytes over, used again and again.
        carrier: Vec<u8>,
    },
}

/// What became of looking whether the file is still where it was.
#[derive(Debug)]
pub(super) enum Look {
    /// Lines go on to where they went.
    Same,
    /// The next line goes to another file.
    Reopened,
    /// It is not, and no other could be opened: lines go on to where they went.
    Refused(io::Error),
}

impl Target {
    pub(super) fn log(queue: &LineQueue) -> Self {
        Self::Log {
            queue: queue.clone(),
            carrier: Vec::new(),
        }
    }

    /// Writes all of `bytes`, with as few calls as the kernel allows.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteFailure> {
        match self {
            Self::File(file) => write_counted(&mut file.file, bytes),
            Self::Log { queue, carrier } => {
                carrier.clear();
                carrier.extend_from_slice(bytes);
                let (back, outcome) = queue.write_through(mem::take(carrier));
                *carrier = back;
                outcome
            }
        }
    }

    /// Whether a line that was cut by a failure is completed by what is written next. On standard error an ordinary
    /// line may have come between.
    pub(super) const fn is_ours_alone(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Looks, if it is time to, whether the file was moved away, and opens it anew.
    pub(super) fn look(&mut self, every: Duration) -> Look {
        match self {
            Self::File(file) => file.look(every),
            Self::Log { .. } => Look::Same,
        }
    }
}

/// Open for appending.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    identity: Identity,
    looked_at: Instant,
}

/// Device and inode: what a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl LogFile {
    /// Opens it, or makes it. A last line without an end is ended.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let mut file = OpenOptions::new()
            .append(true)
            // Opening a pipe for writing alone waits for a reader, and loses what is in it when the reader goes.
            .read(is_pipe)
            .create(true)
            // Lines name clients.
            .mode(0o640)
            .open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && !ends_its_line(path, metadata.len()) {
            // If it cannot be written to now, that will be heard of with the first lines.
            let _ = file.write_all(b"\n");
        }
        Ok(Self {
            path: path.to_owned(),
            identity: Identity::of(&metadata),
            file,
            looked_at: Instant::now(),
        })
    }

    /// As if opening `path` had led to this.
    #[cfg(test)]
    pub(super) fn stand_in(path: &Path, file: File) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Identity::of(&fs::metadata(path)?),
            file,
            looked_at: Instant::now(),
        })
    }

    fn look(&mut self, every: Duration) -> Look {
        if self.looked_at.elapsed() < every {
            return Look::Same;
        }
        self.looked_at = Instant::now();
        match fs::metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => return Look::Same,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Look::Refused(error),
            Ok(_) | Err(_) => {}
        }
        match Self::open(&self.path) {
            Ok(file) => {
                *self = file;
                Look::Reopened
            }
            Err(error) => Look::Refused(error),
        }
    }
}

/// Whether the next line stands alone; `true` too where that cannot be found out.
fn ends_its_line(path: &Path, length: u64) -> bool {
    let Some(last) = length.checked_sub(1) else {
        return true;
    };
    let mut byte = [b'\n'];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut byte, last));
    read.is_err() || byte == [b'\n']
}
