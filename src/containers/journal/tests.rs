use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::containers::image::ProcessFingerprint;
use crate::containers::{ContainerNetwork, ContainerUnixSocket, LifecycleState, SocketNamespace};
use crate::model::{ContainerId, Generation, Labels, Origin, TaskId, Timestamp};
use crate::net::netns::Namespace;

const SEED: u64 = 7;

/// A container in this state.
fn image(allocation: u64, step: u8) -> ContainerSnapshot {
    let container_id = ContainerId::new(&format!("c{allocation}")).unwrap();
    let own = Namespace::own_id().unwrap();
    ContainerSnapshot {
        allocation: Allocation(allocation),
        origin: Arc::new(Origin {
            task_id: TaskId::from(&container_id),
            container_id,
            generation: Generation(u32::from(step) + 1),
            labels: Labels::from([("framework".to_owned(), "marathon".to_owned())]),
        }),
        alias: None,
        state: if step == 0 { LifecycleState::Reserved } else { LifecycleState::Listening },
        attached: step > 0,
        pid: (step > 0).then_some(4_711),
        identity: (step > 0).then_some(ProcessFingerprint { start_ticks: 123_456, cgroup: Some(9) }),
        address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18_125)),
        unix: Some(ContainerUnixSocket {
            source: "/s/1".into(),
            path: "/p/d.sock".into(),
            only: false,
            checked: true,
        }),
        network: ContainerNetwork::Path("/run/netns/one".into()),
        place: if step > 1 { SocketNamespace::Own(own) } else { SocketNamespace::Unborn },
        gauge_sign: GaugeSign::Absolute,
        timer_unit: TimerUnit::Seconds,
        details: [Some("/bundle".to_owned()), None, Some("uid".to_owned()), None, None],
        adopted: true,
        reason: Some("no agent".to_owned()),
        warnings: vec!["the receive buffer is small".to_owned()],
        receive_buffer: 65_536,
        reserved_at: Timestamp::from_secs(1_000),
        since_boot: Duration::from_millis(1_234_567),
        deadline: Some(Timestamp::from_secs(1_060)),
        finished_at: None,
        accounting: None,
    }
}

/// All images that were written, and the file.
fn written() -> (Vec<ContainerSnapshot>, Vec<u8>) {
    let steps = [(1, 0), (2, 0), (1, 1), (3, 0), (2, 1), (1, 2)];
    let images: Vec<_> = steps.into_iter().map(|(allocation, step)| image(allocation, step)).collect();
    let mut bytes: Vec<u8> = images.iter().flat_map(image_bytes).collect();
    bytes.extend(record_bytes(&JournalRecord::Forget(Allocation(3)), SEED));
    (images, bytes)
}

/// Whatever was done to the file, only written images are read from it, each container once.
fn holds_nothing_else(images: &[ContainerSnapshot], bytes: &[u8]) -> Replayed {
    let replayed = replay_records(bytes, SEED);
    assert!(replayed.images.iter().all(|image| images.contains(image)));
    assert!(replayed.images.is_sorted_by(|one, next| one.allocation < next.allocation));
    replayed
}

#[test]
fn what_was_written_last_comes_back() {
    let (images, bytes) = written();
    let replayed = holds_nothing_else(&images, &bytes);
    assert_eq!((replayed.images, replayed.damaged), (vec![image(1, 2), image(2, 1)], 0));
}

#[test]
fn wherever_it_is_cut_off_what_is_before_comes_back() {
    let (images, bytes) = written();
    for length in 0..bytes.len() {
        let replayed = holds_nothing_else(&images, &bytes[..length]);
        assert!(replayed.damaged <= 1);
    }
}

#[test]
fn whichever_bit_is_flipped_one_record_is_lost_and_no_other() {
    let (images, bytes) = written();
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let replayed = holds_nothing_else(&images, &flipped);
        assert_eq!(replayed.damaged, 1, "bit {at}");
        let ids: Vec<_> = replayed.images.iter().map(|image| image.allocation.0).collect();
        assert!(ids == [1, 2] || ids == [1, 2, 3], "bit {at}: {ids:?}");
    }
}

#[test]
fn another_boot_knows_none_of_it() {
    let (_, bytes) = written();
    let replayed = replay_records(&bytes, SEED + 1);
    assert_eq!((replayed.images.len(), replayed.damaged), (0, 1));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes: Vec<u8>, at in 0_usize..2_000, n in 0_usize..300) {
        replay_records(&bytes, SEED);
        let (images, mut journal) = written();
        let at = at.min(journal.len());
        let end = (at + n).min(journal.len());
        journal.splice(at..end, bytes);
        holds_nothing_else(&images, &journal);
    }
}

#[test]
fn it_is_written_anew_when_most_of_it_is_out_of_date_and_holds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let health = JournalHealth::default();
    let (mut journal, empty) = Journal::open(directory.path(), health.clone()).unwrap();
    assert!(empty.images.is_empty() && journal.is_stale());
    journal.rewrite_images([image(1, 0)].into_iter());
    let mut appended = 0;
    while !journal.is_stale() {
        journal.append_change(Allocation(1), Some(image(1, 2)));
        appended += 1;
    }
    let size = || std::fs::metadata(directory.path().join("containers.journal")).unwrap().len();
    let before = size();
    assert!(appended > 100 && before > MIN_REWRITTEN_BYTES);
    journal.rewrite_images([image(1, 2)].into_iter());
    assert!(size() < 1_000 && !journal.is_stale());
    journal.append_change(Allocation(2), Some(image(2, 0)));
    journal.append_change(Allocation(2), None);
    let (_, replayed) = Journal::open(directory.path(), health.clone()).unwrap();
    assert_eq!((replayed.images, replayed.damaged), (vec![image(1, 2)], 0));
    assert_eq!((health.write_error(), health.failure_count()), (None, 0));
}

#[test]
fn a_directory_that_is_not_there_is_trouble_until_it_is() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("state");
    let health = JournalHealth::default();
    let (mut journal, _) = Journal::open(&directory, health.clone()).unwrap();
    journal.rewrite_images(std::iter::empty());
    assert!(health.write_error().unwrap().contains("No such file"));
    assert!(journal.is_stale(), "it tries again");
    std::fs::create_dir(&directory).unwrap();
    journal.rewrite_images([image(1, 1)].into_iter());
    assert_eq!((health.write_error(), health.failure_count(), journal.is_stale()), (None, 1, false));
}

#[test]
fn records_of_another_boot_are_no_damage_and_damage_is_measured() {
    let (_, records) = written();
    let of_boot = |boot| [record_bytes(&JournalRecord::Boot(boot), ANY_BOOT), records.clone()].concat();
    let replayed = replay_records(&of_boot(SEED), SEED);
    assert_eq!((replayed.images.len(), replayed.damaged, replayed.damaged_bytes), (2, 0, 0));
    let replayed = replay_records(&of_boot(SEED + 1), SEED);
    assert_eq!((replayed.images.len(), replayed.damaged), (0, 0), "a reboot is no damage");
    let first = image_bytes(&image(1, 0)).len();
    let mut bytes = records.clone();
    bytes[first / 2] ^= 1;
    let replayed = replay_records(&bytes, SEED);
    assert_eq!((replayed.images.len(), replayed.damaged, replayed.damaged_bytes), (2, 1, first));
    let replayed = replay_records(b"nothing of ours", SEED);
    assert_eq!((replayed.images.len(), replayed.damaged, replayed.damaged_bytes), (0, 1, 15));
}

fn record_bytes(record: &JournalRecord, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.put(FORMAT, seed, &mut bytes).unwrap();
    bytes
}

fn image_bytes(image: &ContainerSnapshot) -> Vec<u8> {
    record_bytes(&JournalRecord::Put(Box::new(image.clone())), SEED)
}

#[test]
fn the_bytes_of_a_journal_are_those_that_earlier_builds_read_and_write() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), JournalHealth::default()).unwrap();
    journal.seed = SEED;
    journal.rewrite_images([image(1, 0)].into_iter());
    journal.append_change(Allocation(3), None);
    let bytes = std::fs::read(directory.path().join(JOURNAL)).unwrap();
    let digits = |byte: &u8| format!("{byte:02x}");
    let hex: String = bytes.iter().map(digits).collect();
    let golden = "54504a02020000000207452e73102d9a8c4f54504a02a000000000010263310102633101096672616d65776f726b086d\
        61726174686f6e000000000001007f000001cd8d0101042f732f31092f702f642e736f636b0001010e2f72756e2f6e65\
        746e732f6f6e6502020101072f62756e646c6500010375696400000101086e6f206167656e74011b7468652072656365\
        6976652062756666657220697320736d616c6c80800480a8d6b907d209c0f7ae8e020180c4f2f20700003f167188705f\
        1ea454504a0202000000010350ff32204444b40b";
    assert_eq!(hex, golden);
}

#[test]
fn a_record_that_is_too_long_is_refused_by_its_container_and_the_journal_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let health = JournalHealth::default();
    let (mut journal, _) = Journal::open(directory.path(), health.clone()).unwrap();
    journal.format = FrameFormat { longest: 300, ..FORMAT };
    let too_long = |allocation| ContainerSnapshot { warnings: vec!["x".repeat(300)], ..image(allocation, 1) };
    let replayed = || {
        let (_, replayed) = Journal::open(directory.path(), JournalHealth::default()).unwrap();
        assert_eq!(replayed.damaged, 0);
        replayed.images.iter().map(|image| image.allocation.0).collect::<Vec<_>>()
    };
    journal.rewrite_images([image(1, 0), too_long(2)].into_iter());
    journal.append_change(Allocation(3), Some(image(3, 0)));
    let error = health.write_error().unwrap();
    assert!(error.starts_with("the record of container c2: the payload has "), "{error}");
    assert!(error.ends_with(" bytes and may have 300"), "{error}");
    assert_eq!((replayed(), health.failure_count(), journal.is_stale()), (vec![1, 3], 1, false));
    // A container whose new state is too long stays as it was, until it fits or is forgotten.
    journal.append_change(Allocation(3), Some(too_long(3)));
    journal.append_change(Allocation(2), Some(image(2, 0)));
    assert!(health.write_error().unwrap().starts_with("the record of container c3: "));
    assert_eq!((replayed(), health.failure_count()), (vec![1, 2, 3], 2));
    journal.append_change(Allocation(3), None);
    assert_eq!((replayed(), health.write_error(), health.failure_count()), (vec![1, 2], None, 2));
}

#[test]
fn an_unwritable_file_is_reported_although_a_record_is_refused_and_each_refusal_once() {
    let logged = LoggedLines::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(logged.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("state");
    std::fs::create_dir(&directory).unwrap();
    let health = JournalHealth::default();
    let (mut journal, _) = Journal::open(&directory, health.clone()).unwrap();
    journal.format = FrameFormat { longest: 300, ..FORMAT };
    let images =
        || [image(1, 0), ContainerSnapshot { warnings: vec!["x".repeat(300)], ..image(2, 1) }].into_iter();
    let (refused, unwritable) = ("a record is too long", "cannot write the journal");
    journal.rewrite_images(images());
    journal.rewrite_images(images());
    assert_eq!((logged.count(refused), logged.count(unwritable)), (1, 0));
    std::fs::remove_dir_all(&directory).unwrap();
    journal.rewrite_images(images());
    journal.rewrite_images(images());
    assert_eq!((logged.count(refused), logged.count(unwritable)), (1, 1));
    assert!(health.write_error().unwrap().contains("No such file"), "it affects every container");
    std::fs::create_dir(&directory).unwrap();
    journal.rewrite_images(images());
    assert!(health.write_error().unwrap().starts_with("the record of container c2"));
    journal.append_change(Allocation(2), Some(image(2, 0)));
    assert_eq!((health.write_error(), logged.count("can be written again")), (None, 1));
}

/// What was logged.
#[derive(Clone, Default)]
struct LoggedLines(Arc<Mutex<Vec<u8>>>);

impl LoggedLines {
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(text).count()
    }
}

impl io::Write for LoggedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for LoggedLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
