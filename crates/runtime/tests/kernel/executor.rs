//! Tasks, timers, wakers and calls from other threads.

use crate::harness::*;
use ringway_runtime::{Address, Errno, Handle, SendOutcome, Sleep, SocketOptions};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn run_returns_when_main_ends_with_nothing_in_flight() {
    limited(|| {
        let runtime = new_runtime(SMALL);
        assert_eq!(block_on(&runtime, async { 7 }), 7);
        assert_eq!(block_on(&runtime, async { 8 }), 8, "a runtime runs more than once");
    });
}

#[test]
fn a_panic_ends_its_task_only() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    run(SMALL, |handle| async move {
        let (stream, mut peer) = pair(&handle).await;
        let echoing = handle.spawn(async move { echo(stream, false).await.expect("a clean exchange") });
        let (doomed, doomed_peer) = pair(&handle).await;
        handle.spawn(async move {
            let _receive = doomed.receive();
            one_turn().await;
            panic!("in a task");
        });
        handle.spawn(async { drop(PanicsWhenDropped) });
        handle.spawn(async {
            let _guard = PanicsWhenDropped;
        });
        assert!(handle.remote().run(|_| panic!("in a call")));
        until(|| handle.stats().tasks_panicked == 4).await;
        let error = in_thread(move || (&doomed_peer).read(&mut [0; 1]).expect_err("a reset")).await;
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "the peer must not take it for an orderly end"
        );
        assert!(handle.is_alive(echoing));
        in_thread(move || {
            peer.write_all(b"still there").expect("write");
            peer.shutdown(std::net::Shutdown::Write).expect("shutdown");
            assert_eq!(read_to_end(peer), b"still there");
        })
        .await;
        until(|| !handle.is_alive(echoing)).await;
    });
}

#[test]
fn a_task_may_spawn_and_wake_from_its_destructor() {
    struct Spawns(Handle, Counter);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let counter = self.1.clone();
            self.0.spawn(async move { counter.add() });
        }
    }
    run(SMALL, |handle| async move {
        let counter = Counter::default();
        let guard = Spawns(handle.clone(), counter.clone());
        handle.spawn(async move { drop(guard) });
        counter.reaches(1).await;
    });
}

/// A waker of a task that has ended wakes nobody, not even the task that got its place.
#[test]
fn late_wakes_are_harmless() {
    run(SMALL, |handle| async move {
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = kept.clone();
        let first = handle.spawn(poll_fn(move |context| {
            *keep.borrow_mut() = Some(context.waker().clone());
            Poll::Ready(())
        }));
        until(|| !handle.is_alive(first)).await;
        let polls = Rc::new(Cell::new(0));
        let counted = polls.clone();
        let second = handle.spawn(poll_fn(move |_| {
            counted.set(counted.get() + 1);
            if counted.get() == 2 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        two_turns().await;
        kept.borrow().as_ref().expect("the first task ran").wake_by_ref();
        let elsewhere = kept.borrow().clone();
        in_thread(move || elsewhere.expect("the first task ran").wake()).await;
        handle.wake(first);
        two_turns().await;
        assert_eq!(polls.get(), 1);
        handle.wake(second);
        until(|| !handle.is_alive(second)).await;
    });
}

#[test]
fn wakers_work_from_any_thread() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 300;
    run(SMALL, |handle| async move {
        let done = Counter::default();
        for _ in 0..THREADS {
            let (wakers, woken) = mpsc::channel::<Waker>();
            thread::spawn(move || woken.iter().for_each(Waker::wake));
            let done = done.clone();
            handle.spawn(async move {
                for _ in 0..ROUNDS {
                    let mut sent = false;
                    // Pending until the other thread wakes; nothing else would.
                    poll_fn(|context| {
                        if sent {
                            return Poll::Ready(());
                        }
                        sent = true;
                        wakers.send(context.waker().clone()).expect("the thread lives");
                        Poll::Pending
                    })
                    .await;
                }
                done.add();
            });
        }
        done.reaches(THREADS).await;
    });
}

#[test]
fn calls_from_other_threads_all_come_in_order() {
    const THREADS: usize = 8;
    const CALLS: usize = 2_000;
    thread_local! {
        static SEEN: RefCell<Vec<Vec<usize>>> = RefCell::new(vec![Vec::new(); THREADS]);
    }
    run(SMALL, |handle| async move {
        let total = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (remote, total) = (handle.remote(), total.clone());
                in_thread(move || {
                    for n in 0..CALLS {
                        let total = total.clone();
                        assert!(remote.run(move |_| {
                            SEEN.with_borrow_mut(|seen| seen[thread].push(n));
                            total.fetch_add(1, Ordering::Relaxed);
                        }));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await;
        }
        until(|| total.load(Ordering::Relaxed) == THREADS * CALLS).await;
        SEEN.with_borrow(|seen| seen.iter().for_each(|seen| assert!(seen.iter().copied().eq(0..CALLS))));
    });
}

#[test]
fn a_call_wakes_a_runtime_that_waits() {
    limited(|| {
        let runtime = new_runtime(SMALL);
        let remote = runtime.handle().remote();
        let (called, calls) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let caller = thread::spawn(move || {
            for _ in 0..100 {
                let called = called.clone();
                assert!(remote.run(move |handle| {
                    // A task of its own: what a call spawns runs without another event.
                    handle.spawn(async move { called.send(()).expect("the caller waits") });
                }));
                calls.recv().expect("the runtime runs");
            }
            assert!(remote.run(|_| STOP.set(true)));
            end.recv().expect("the runtime's end");
            assert!(!remote.run(|_| unreachable!("the runtime has ended")));
        });
        while !STOP.get() {
            runtime.turn(true);
        }
        drop(runtime);
        ended.send(()).expect("the caller waits");
        caller.join().expect("the caller");
    });
}

thread_local! {
    static STOP: Cell<bool> = const { Cell::new(false) };
}

/// Accurate to 2 ms. (A loaded machine delays most timers at times, hence five tries.)
#[test]
fn timers_fire_in_order_never_early_and_on_time() {
    run(SMALL, |handle| async move {
        let mut medians = Vec::new();
        for _ in 0..5 {
            let mut late = lateness(&handle).await;
            late.sort();
            medians.push(late[late.len() / 2]);
            if late[late.len() / 2] < ms(2) {
                return;
            }
        }
        panic!("half of the timers were later than {medians:?}");
    });
}

/// How late a set of timers fires, in the order of their deadlines.
async fn lateness(handle: &Handle) -> Vec<Duration> {
    let late: Rc<RefCell<Vec<(u64, Duration)>>> = Rc::default();
    let done = Counter::default();
    let wanted = [120, 3, 61, 40, 7, 90, 25, 64, 15, 128, 33, 80];
    one_turn().await;
    // The deadlines count from the turn's time: taken before `start`, by less than what a turn takes.
    let (start, turn) = (Instant::now(), handle.now());
    for after in wanted {
        let (late, done, handle) = (late.clone(), done.clone(), handle.clone());
        handle.clone().spawn(async move {
            handle.sleep_until(turn + ms(after)).await;
            assert!(handle.now() >= turn + ms(after), "{after} ms: early");
            let elapsed = start.elapsed();
            late.borrow_mut().push((after, elapsed.saturating_sub(ms(after))));
            done.add();
        });
    }
    done.reaches(wanted.len()).await;
    let late = late.borrow();
    assert!(late.is_sorted_by_key(|(after, _)| *after), "{late:?}");
    late.iter().map(|(_, late)| *late).collect()
}

/// Time that tasks took does not delay timers beyond it. (A loaded machine may, hence five tries.)
#[test]
fn a_busy_turn_does_not_delay_timers() {
    run(SMALL, |handle| async move {
        let mut tries = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let sleep = handle.sleep(ms(50));
            handle.spawn(async { thread::sleep(ms(45)) });
            sleep.await;
            tries.push(start.elapsed());
            assert!(start.elapsed() >= ms(49), "{tries:?}: early");
            if start.elapsed() < ms(70) {
                return;
            }
        }
        panic!("{tries:?} instead of 50 ms");
    });
}

#[test]
fn a_deadline_can_be_moved() {
    run(SMALL, |handle| async move {
        let start = Instant::now();
        let mut sleep = handle.sleep(ms(20));
        assert!(poll_once(&mut sleep).await.is_pending());
        sleep.reset(handle.now() + ms(60));
        sleep.await;
        assert!(start.elapsed() >= ms(59), "moved later, fired at the old deadline");
        let start = Instant::now();
        let mut sleep = handle.sleep(Duration::from_secs(3_600));
        assert!(poll_once(&mut sleep).await.is_pending());
        sleep.reset(handle.now() + ms(10));
        sleep.await;
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

/// Moving a deadline from elsewhere than its task: the task need not be polled for it to count.
#[test]
fn a_deadline_moved_from_elsewhere_counts() {
    run(SMALL, |handle| async move {
        let sleep = Rc::new(RefCell::new(handle.sleep(Duration::from_secs(3_600))));
        let (shared, done) = (sleep.clone(), Counter::default());
        let counter = done.clone();
        handle.spawn(async move {
            poll_fn(|context| Pin::new(&mut *shared.borrow_mut()).poll(context)).await;
            counter.add();
        });
        two_turns().await;
        sleep.borrow_mut().reset(handle.now() + ms(5));
        done.reaches(1).await;
    });
}

/// A future wakes whoever polled it last.
#[test]
fn a_sleep_may_change_tasks() {
    run(SMALL, |handle| async move {
        let mut sleep = handle.sleep(ms(10));
        assert!(poll_once(&mut sleep).await.is_pending());
        let done = Counter::default();
        let counter = done.clone();
        handle.spawn(async move {
            sleep.await;
            counter.add();
        });
        done.reaches(1).await;
    });
}

async fn poll_once(sleep: &mut Sleep) -> Poll<()> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *sleep).poll(context))).await
}

/// What outlives its runtime says ECANCELED, starts nothing, and can be dropped.
#[test]
fn nothing_starts_after_the_end() {
    /// ECANCELED of errno(3).
    const CANCELED: Errno = Errno(125);
    limited(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        let inner = handle.clone();
        let (stream, mut peer, listener) = block_on(&runtime, async move {
            let (stream, peer) = pair(&inner).await;
            (stream, peer, listen(&inner).0)
        });
        let (mut receive, mut accepting, mut writable) = (stream.receive(), listener.accept(), stream.writable());
        let address = listen(&handle).1;
        drop(runtime);
        let mut context = Context::from_waker(Waker::noop());
        for receive in [&mut receive, &mut stream.receive()] {
            receive.pause();
            receive.resume();
            assert_eq!(receive.poll_next(&mut context).map_ok(drop), Poll::Ready(Err(CANCELED)));
        }
        assert_eq!(
            accepting.poll_next(&mut context).map_ok(drop),
            Poll::Ready(Err(CANCELED))
        );
        assert_eq!(
            listener.accept().poll_next(&mut context).map_ok(drop),
            Poll::Ready(Err(CANCELED))
        );
        assert_eq!(Pin::new(&mut writable).poll(&mut context), Poll::Ready(Err(CANCELED)));
        let send = stream.send_bytes(Box::new([1; 8]), 0, false).poll_outcome(&mut context);
        assert!(matches!(send, Poll::Ready(SendOutcome::Failed(_, CANCELED))));
        let mut connect = handle
            .connect(&Address::Inet(address), None, &SocketOptions::default())
            .expect("socket");
        assert_eq!(
            Pin::new(&mut connect).poll(&mut context).map_ok(drop),
            Poll::Ready(Err(CANCELED))
        );
        let dropped = Rc::new(());
        let weak = Rc::downgrade(&dropped);
        let task = handle.spawn(async move { drop(dropped) });
        assert!(
            weak.upgrade().is_none() && !handle.is_alive(task),
            "a task of a runtime that has ended"
        );
        drop((receive, accepting, writable, connect, stream));
        assert_eq!(read_to_end(&mut peer), b"", "the descriptor is closed");
        drop(listener);
        assert_eq!((handle.stats().operations, handle.stats().sockets), (0, 0));
    });
}
