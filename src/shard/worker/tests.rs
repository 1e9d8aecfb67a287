use tokio::sync::oneshot;

use super::*;
use crate::shard::command::{Detail, Of};

struct Bench {
    worker: Worker,
    commands: std::sync::mpsc::Sender<Command>,
    questions: std::sync::mpsc::Sender<Question>,
}

/// A shard without a thread, whose turns the test takes itself.
fn bench() -> Bench {
    let (commands, received) = std::sync::mpsc::channel();
    let (questions, asked) = std::sync::mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap());
    let (store, settings) = (Arc::new(Store::new(1, 30)), Arc::new(Settings::default()));
    let parts = (store, settings, Arc::new(Shared::new(1, usize::MAX)), Clock::default());
    let worker = Worker::new(0, Duration::ZERO, (received, asked, wake), parts, None).unwrap();
    Bench { worker, commands, questions }
}

/// How many have been answered, in the order they were asked.
fn answered<T>(answers: &mut [oneshot::Receiver<T>]) -> usize {
    answers.iter_mut().map(|answer| answer.try_recv().is_ok()).take_while(|answered| *answered).count()
}

#[test]
fn commands_beyond_a_turns_share_are_obeyed_in_the_next_turns() {
    let mut bench = bench();
    let mut answers = Vec::new();
    for _ in 0..1000 {
        let (reply, answer) = oneshot::channel();
        bench.commands.send(Command::Work(reply)).unwrap();
        answers.push(answer);
    }
    let mut turns = 0;
    while !answers.is_empty() {
        assert!(matches!(bench.worker.obey(), Next::Go));
        let done = answered(&mut answers);
        assert!((1..=256).contains(&done), "{done} in one turn");
        answers.drain(..done);
        turns += 1;
    }
    assert!(turns >= 4);
    assert!(matches!(bench.worker.obey(), Next::Go));
    assert!(!bench.worker.orders_left);
}

#[test]
fn a_command_does_not_wait_for_readers_however_many_they_are() {
    let mut bench = bench();
    let mut looks = Vec::new();
    for _ in 0..10_000 {
        let (reply, answer) = oneshot::channel();
        bench.questions.send(Question::Look(Of::All, Detail::Counts, reply)).unwrap();
        looks.push(answer);
    }
    let (reply, answer) = oneshot::channel();
    bench.commands.send(Command::Work(reply)).unwrap();
    assert!(matches!(bench.worker.obey(), Next::Go));
    assert_eq!((answered(&mut [answer]), answered(&mut looks)), (1, 0));
    bench.worker.answer();
    assert!(answered(&mut looks) <= 1024, "questions are taken in by slices, too");
}
