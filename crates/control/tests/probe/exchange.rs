//! The probe that sends bytes and awaits others.

use super::peers::{
    ask, assert_passed, backend, check, check_within, drip, failed, fails_after, heard, reset, say, stay_silent, told,
    unix_backend, until_the_end,
};
use ringway_core::model::{Probe, ProbeExchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn exchange(send: &str, expect: &str) -> Probe {
    Probe::Exchange(ProbeExchange {
        send: send.as_bytes().into(),
        expect: expect.as_bytes().into(),
        tls: None,
    })
}

#[tokio::test]
async fn what_is_sent_arrives_and_the_expected_answer_passes() {
    let (tell, mut ends) = told();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut question = [0; 6];
            stream.read_exact(&mut question).await.expect("is asked");
            stream.write_all(b"+PONG\r\n").await.expect("answers");
            drop(tell.send((question, until_the_end(&mut stream).await)));
        }
    });
    let address = address.await;
    assert_passed(
        &ask(&check(exchange("PING\r\n", "+PONG")), &address).await,
        "expected answer in ",
    );
    assert_eq!(heard(&mut ends).await, (*b"PING\r\n", Ok(vec![])));
}

#[tokio::test]
async fn a_backend_that_speaks_first_needs_no_question() {
    let address = backend(|stream| say(stream, b"220 mail.example ESMTP\r\n".to_vec())).await;
    for expect in ["220 ", "ESMTP", ""] {
        assert_passed(
            &ask(&check(exchange("", expect)), &address).await,
            "expected answer in ",
        );
    }
    assert_eq!(
        ask(&check(exchange("", "250 ")), &address).await,
        failed(r#"the answer, "220 mail.example ESMTP\r\n", does not contain "250 ""#)
    );
}

#[tokio::test]
async fn an_expected_answer_may_come_in_pieces() {
    let address = backend(|mut stream| async move {
        for byte in b"+PONG" {
            stream.write_all(&[*byte]).await.expect("sends");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        stay_silent(stream).await;
    });
    assert_passed(
        &ask(&check(exchange("", "+PONG")), &address.await).await,
        "expected answer in ",
    );
}

#[tokio::test]
async fn silence_fails_on_time() {
    let address = backend(stay_silent).await;
    let check = check_within(exchange("PING\r\n", ""), 300);
    fails_after(300, &check, &address, "no answer within 300ms").await;
}

#[tokio::test]
async fn single_bytes_do_not_extend_the_timeout() {
    let address = backend(|stream| drip(stream, b'x')).await;
    let started = std::time::Instant::now();
    let result = ask(&check_within(exchange("", "y"), 300), &address).await;
    let took = started.elapsed().as_millis();
    assert!((300..1300).contains(&took), "{took}");
    let Err(ringway_control::probe::ProbeError::Failed(words)) = result else {
        panic!("{result:?}")
    };
    assert!(words.starts_with("the answer, \"xxx"), "{words}");
    assert!(words.ends_with(", does not contain \"y\" within 300ms"), "{words}");
}

#[tokio::test]
async fn an_end_without_an_answer_fails() {
    let address = backend(|mut stream| async move { drop(stream.read(&mut [0; 100]).await) }).await;
    assert_eq!(
        ask(&check(exchange("PING\r\n", "+PONG")), &address).await,
        failed("ended by the backend without an answer")
    );
}

#[tokio::test]
async fn a_reset_instead_of_an_answer_fails() {
    let address = backend(|mut stream| async move {
        drop(stream.read(&mut [0; 100]).await);
        reset(&stream);
    });
    assert_eq!(
        ask(&check(exchange("PING\r\n", "+PONG")), &address.await).await,
        failed("reset by the backend instead of an answer")
    );
}

#[tokio::test]
async fn only_the_first_16_kib_are_looked_at() {
    let answer = |before: usize| [vec![b'a'; before], b"+PONG".to_vec(), vec![b'a'; 50_000]].concat();
    let within = backend(move |stream| say(stream, answer(16_384 - 5))).await;
    assert_passed(
        &ask(&check(exchange("", "+PONG")), &within).await,
        "expected answer in ",
    );
    let beyond = backend(move |stream| say(stream, answer(16_384 - 4))).await;
    assert_eq!(
        ask(&check(exchange("", "+PONG")), &beyond).await,
        failed(&format!(
            "the first 16 KiB of the answer, \"{}\"..., does not contain \"+PONG\"",
            "a".repeat(40)
        ))
    );
}

#[tokio::test]
async fn what_a_backend_says_is_shown_without_its_control_characters() {
    let address = backend(|stream| say(stream, b"\x1b[2J\r\n\x00\xff\x9b\"".to_vec())).await;
    assert_eq!(
        ask(&check(exchange("", "+PONG")), &address).await,
        failed(r#"the answer, "\x1b[2J\r\n\x00\xff\x9b\"", does not contain "+PONG""#)
    );
    // Every byte becomes four characters; `ask` asserts the limit on them.
    let longest = backend(|stream| say(stream, vec![7; 100])).await;
    assert!(ask(&check(exchange("", &"\x07".repeat(101))), &longest).await.is_err());
}

#[tokio::test]
async fn unix_sockets_are_asked_too() {
    let address = unix_backend(|mut stream| async move {
        drop(stream.write_all(b"+PONG\r\n").await);
        drop(until_the_end(&mut stream).await);
    });
    assert_passed(
        &ask(&check(exchange("PING\r\n", "+PONG")), &address).await,
        "expected answer in ",
    );
}
