use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command};

use super::*;
use crate::aggregate::{self, TimerUnit, View};
use crate::containers::image::ContainerSnapshot;
use crate::containers::reservation::{ContainerNetwork, Dialect, Reservation, Ttl};
use crate::containers::state::{LifecycleState, SocketNamespace};
use crate::containers::{
    AttachError, Leaving, ProcessError, ReleaseError, ReserveError, ReservedContainer, Unserved,
    WantedAddress,
};
use crate::model::{Generation, TaskId};
use crate::net::clock::Clock;
use crate::shard::{SentAhead, ShardPlan};
use tokio::sync::oneshot;

struct Node {
    containers: ContainerTableHandle,
    store: Arc<Store>,
}

impl TableSettings {
    /// Defaults, with this limit and port. Each test module has a port of its own, and none has the default one, because an
    /// agent may be running here.
    pub(crate) fn for_tests(containers: usize, port: u16) -> Self {
        Self {
            containers,
            port,
            receive_buffer: 65_536,
            receive_buffers: 1 << 30,
            receive_buffer_max: 1 << 22,
            rest: Duration::from_mins(10),
            reservation_ttl: Duration::from_mins(1),
            tombstone: Duration::from_mins(10),
            adopt_mute: false,
            gauge_sign: GaugeSign::Delta,
            timer_unit: TimerUnit::default(),
            dcos_host: None,
            node_labels: Labels::new(),
            unix: UnixSettings {
                mode: crate::containers::UnixSocketMode::OptIn,
                path: "/var/run/datadog/dsd.socket".into(),
                directory: "/nowhere/sockets".into(),
                queue: 1,
            },
        }
    }
}

fn settings() -> TableSettings {
    TableSettings::for_tests(100, 18_625)
}

fn node(settings: TableSettings) -> Node {
    let (table, containers) = table(settings);
    let store = Arc::clone(&table.store);
    tokio::spawn(table.run());
    Node { containers, store }
}

fn table(settings: TableSettings) -> (ContainerTable, ContainerTableHandle) {
    let store = Arc::new(Store::new(1, 30));
    let pool = ShardPool::start(
        &ShardPlan::for_tests(),
        &store,
        &Arc::new(aggregate::AggregatorSettings::default()),
        Clock::default(),
    );
    ContainerTable::new(settings, Arc::new(pool.unwrap()), store)
}

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

impl Node {
    async fn reserve(&self, container: &str) -> Result<ReservedContainer, ReserveError> {
        self.containers.reserve(Reservation::new(id(container))).await
    }

    async fn reserve_with(
        &self,
        container: &str,
        change: impl FnOnce(&mut Reservation),
    ) -> Result<ReservedContainer, ReserveError> {
        let mut reservation = Reservation::new(id(container));
        change(&mut reservation);
        self.containers.reserve(reservation).await
    }

    fn state(&self, container: &str) -> Option<LifecycleState> {
        self.containers.directory().find_container(&id(container)).map(|info| info.state)
    }

    async fn until(&self, container: &str, state: LifecycleState) -> Arc<ContainerInfo> {
        for _ in 0..5000 {
            if self.state(container) == Some(state) {
                return self.containers.directory().find_container(&id(container)).unwrap();
            }
            // Real time, even if the runtime's clock is paused: the shard is a separate thread.
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        panic!("{container} is {:?}, not {state}", self.state(container));
    }

    fn sum(&self, allocation: Allocation) -> f64 {
        let history = self.store.find_history(allocation).unwrap();
        let records = history.kept_intervals().flat_map(crate::store::IntervalWindows::newest_records);
        let sums = records.map(|(_, _, record)| match record.view {
            View::Counter { counter, .. } => counter.sum,
            _ => 0.0,
        });
        sums.sum()
    }
}

fn send(address: Option<SocketAddr>, datagram: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(datagram.as_bytes(), address.unwrap()).unwrap();
}

struct Process(Child);

impl Process {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.end();
        }
    }
}

#[tokio::test]
async fn a_reservation_may_be_repeated_and_has_the_same_address() {
    let node = node(settings());
    let first = node.reserve("c1").await.unwrap();
    let again = node.reserve("c1").await.unwrap();
    assert!(first.new && !again.new);
    assert_eq!(first.info.address, again.info.address);
    assert_eq!((first.info.state, first.info.origin.generation), (LifecycleState::Listening, Generation(1)));
    let other = node.reserve("c2").await.unwrap();
    assert_ne!(other.info.address, first.info.address);
}

#[tokio::test]
async fn a_new_reservation_whose_caller_has_given_up_is_released_and_one_that_was_there_is_not() {
    let (mut table, containers) = table(settings());
    let state = |container: &str| containers.directory().find_container(&id(container)).unwrap().state;
    let (reply, gone) = oneshot::channel();
    drop(gone);
    table.handle_request(TableRequest::Reserve(Box::new(Reservation::new(id("c1"))), reply)).await;
    assert_eq!(state("c1"), LifecycleState::Draining, "nothing knows of its address");
    let (reply, answer) = oneshot::channel();
    table.handle_request(TableRequest::Reserve(Box::new(Reservation::new(id("c1"))), reply)).await;
    assert!(answer.await.unwrap().unwrap().new);
    let (reply, gone) = oneshot::channel();
    drop(gone);
    table.handle_request(TableRequest::Reserve(Box::new(Reservation::new(id("c1"))), reply)).await;
    assert_eq!(state("c1"), LifecycleState::Listening, "the first caller has its address");
}

#[tokio::test]
async fn two_reservations_at_one_moment_open_one_socket() {
    let node = node(settings());
    let (one, other) = tokio::join!(node.reserve("c1"), node.reserve("c1"));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.info.address, other.info.address);
    assert!(one.new != other.new);
}

#[tokio::test]
async fn another_task_or_bundle_under_a_living_id_is_a_conflict() {
    let node = node(settings());
    node.reserve_with("c1", |r| r.details.bundle = Some("/a".to_owned())).await.unwrap();
    let task = node.reserve_with("c1", |r| r.task_id = Some(TaskId::new("other").unwrap())).await;
    let bundle = node.reserve_with("c1", |r| r.details.bundle = Some("/b".to_owned())).await;
    assert!(matches!(task, Err(ReserveError::Conflict { what: "task", .. })));
    assert!(matches!(bundle, Err(ReserveError::Conflict { what: "bundle", .. })));
    let network =
        node.reserve_with("c1", |r| r.network = ContainerNetwork::Path("/proc/self/ns/net".into())).await;
    assert!(!network.unwrap().new, "another name for the same namespace is no difference");
    assert!(!node.reserve("c1").await.unwrap().new, "nor is what is not said");
    node.reserve("c2").await.unwrap();
    let later = node.reserve_with("c2", |r| r.details.bundle = Some("/a".to_owned())).await;
    assert!(!later.unwrap().new, "and who is told of it later means the same container");
}

#[tokio::test]
async fn what_is_sent_before_the_end_is_read_after_it() {
    let node = node(settings());
    let mut process = Process::start();
    let pid = process.pid();
    let info = node.reserve_with("c1", |r| r.pid = Some(pid)).await.unwrap().info;
    assert_eq!(info.pid, Some(pid));
    send(info.address, "a:1|c");
    send(info.address, "a:2|c");
    let before = Instant::now();
    process.end();
    let gone = node.until("c1", LifecycleState::Gone).await;
    assert!(before.elapsed() < Duration::from_millis(250), "{:?}", before.elapsed());
    assert_eq!(node.sum(info.allocation), 3.0);
    assert_eq!(gone.last.as_ref().unwrap().accounting.received, 2);
    assert!(gone.finished_at.is_some());
}

#[tokio::test]
async fn an_id_that_comes_again_is_a_new_generation_with_another_address() {
    let node = node(settings());
    let first = node.reserve("c1").await.unwrap().info;
    node.containers.release(id("c1")).await.unwrap();
    let second = node.reserve("c1").await.unwrap();
    assert!(second.new);
    assert_eq!(second.info.origin.generation, Generation(2));
    node.until("c1", LifecycleState::Listening).await;
    assert_ne!(second.info.address, first.address, "an address rests after its container");
}

#[tokio::test]
async fn a_process_is_attached_once() {
    let node = node(settings());
    let (one, other) = (Process::start(), Process::start());
    node.reserve("c1").await.unwrap();
    let attach = |pid| node.containers.attach_process(id("c1"), pid);
    assert_eq!(attach(one.pid()).await.unwrap().pid, Some(one.pid()));
    assert_eq!(attach(one.pid()).await.unwrap().pid, Some(one.pid()));
    assert!(matches!(attach(other.pid()).await, Err(AttachError::Another { .. })));
}

#[tokio::test]
async fn what_is_not_there_cannot_be_attached_or_released() {
    let node = node(settings());
    let gone = {
        let mut process = Process::start();
        process.end();
        process.pid()
    };
    assert!(matches!(node.containers.attach_process(id("c1"), 1).await, Err(AttachError::Unknown { .. })));
    assert!(matches!(node.containers.release(id("c1")).await, Err(ReleaseError::Unknown { .. })));
    node.reserve("c1").await.unwrap();
    for pid in [gone, 0, -1] {
        assert!(matches!(
            node.containers.attach_process(id("c1"), pid).await,
            Err(AttachError::Process(ProcessError::NoProcess { .. }))
        ));
    }
    let reserved = node.reserve_with("c2", |r| r.pid = Some(gone)).await;
    assert!(matches!(reserved, Err(ReserveError::Process(ProcessError::NoProcess { .. }))));
    assert!(node.state("c2").is_none(), "nothing is left of it");
    node.containers.release(id("c1")).await.unwrap();
    assert!(matches!(node.containers.attach_process(id("c1"), 1).await, Err(AttachError::Ended { .. })));
    node.containers.release(id("c1")).await.expect("who repeats itself gets the same answer");
}

#[tokio::test(start_paused = true)]
async fn an_unused_reservation_expires() {
    let node = node(settings());
    node.reserve("usual").await.unwrap();
    node.reserve_with("soon", |r| r.ttl = Ttl::After(Duration::from_secs(5))).await.unwrap();
    node.reserve_with("never", |r| r.ttl = Ttl::Never).await.unwrap();
    node.reserve_with("dcos", |r| r.dialect = Dialect::Dcos).await.unwrap();
    let process = Process::start();
    node.reserve_with("attached", |r| r.pid = Some(process.pid())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    node.until("soon", LifecycleState::Gone).await;
    assert_eq!(node.state("usual"), Some(LifecycleState::Listening));
    tokio::time::sleep(Duration::from_secs(58)).await;
    node.until("usual", LifecycleState::Gone).await;
    for container in ["never", "dcos", "attached"] {
        assert_eq!(node.state(container), Some(LifecycleState::Listening), "{container}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_container_is_readable_until_its_tombstone_goes() {
    let node = node(settings());
    let info = node.reserve("c1").await.unwrap().info;
    send(info.address, "a:1|c");
    node.containers.release(id("c1")).await.unwrap();
    node.until("c1", LifecycleState::Gone).await;
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(node.sum(info.allocation), 1.0);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(node.state("c1").is_none());
    assert!(node.store.find_history(info.allocation).is_none());
    assert_eq!(
        node.containers.directory().forgotten_accounting().received,
        1,
        "its counts stay in the node's totals"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_the_last_agent_was_draining_when_it_was_killed_is_gone_and_readable_for_as_long() {
    let info = node(settings()).reserve("c1").await.unwrap().info;
    let draining = ContainerInfo { state: LifecycleState::Draining, ..ContainerInfo::clone(&info) };
    let (mut table, containers) = table(settings());
    let restored = table
        .restore_containers(vec![ContainerSnapshot::from_info(&draining, None, Duration::ZERO, None)])
        .await;
    assert_eq!((restored.kept, restored.gone), (0, 1));
    tokio::spawn(table.run());
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(
        containers.directory().find_container(&id("c1")).map(|info| info.state),
        Some(LifecycleState::Gone)
    );
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(containers.directory().find_container(&id("c1")).is_none());
}

#[tokio::test]
async fn the_number_of_containers_is_limited() {
    let node = node(TableSettings { containers: 2, ..settings() });
    node.reserve("c1").await.unwrap();
    node.reserve("c2").await.unwrap();
    assert!(matches!(node.reserve("c3").await, Err(ReserveError::Full { limit: 2 })));
    assert!(!node.reserve("c2").await.unwrap().new, "one that is here is still answered");
    node.containers.release(id("c1")).await.unwrap();
    assert!(node.reserve("c3").await.is_ok());
}

#[tokio::test]
async fn receive_buffers_have_a_node_wide_sum() {
    let node = node(TableSettings { receive_buffers: 100_000, ..settings() });
    let first = node.reserve("c1").await.unwrap().info;
    let second = node.reserve("c2").await.unwrap().info;
    let third = node.reserve("c3").await.unwrap().info;
    assert_eq!((first.receive_buffer, first.warnings.len()), (65_536, 0));
    assert_eq!((second.receive_buffer, third.receive_buffer), (34_464, SMALLEST_BUFFER));
    assert!(second.warnings[0].contains("listeners.receive_buffers"), "{:?}", second.warnings);
}

#[tokio::test]
async fn a_container_that_opts_out_gets_nothing() {
    let node = node(settings());
    let label =
        |r: &mut Reservation| drop(r.labels.insert("tallyport.enabled".to_owned(), "false".to_owned()));
    assert!(matches!(node.reserve_with("c1", label).await, Err(ReserveError::OptedOut { .. })));
    assert!(node.state("c1").is_none());
}

#[tokio::test]
async fn a_namespace_that_is_not_born_yet_has_an_address_and_no_socket() {
    let node = node(settings());
    let new = |r: &mut Reservation| r.network = ContainerNetwork::New;
    let info = node.reserve_with("c1", new).await.unwrap().info;
    assert_eq!(
        (info.state, info.place, info.receive_buffer),
        (LifecycleState::Reserved, SocketNamespace::Unborn, 0)
    );
    assert_eq!(info.address.unwrap().to_string(), "127.0.0.1:18125");
    assert!(!node.reserve_with("c1", new).await.unwrap().new);
    let host = node.reserve("c1").await;
    assert!(matches!(host, Err(ReserveError::Conflict { what: "network", .. })));
    node.containers.release(id("c1")).await.unwrap();
    node.until("c1", LifecycleState::Gone).await;
    let file = node.reserve_with("c1", |r| r.network = ContainerNetwork::Path("/etc/hostname".into())).await;
    assert!(matches!(file, Err(ReserveError::NotANamespace(_))));
}

#[tokio::test]
async fn a_process_that_cannot_be_a_newborn_container_is_not_attached() {
    let node = node(settings());
    let old = Process::start();
    std::thread::sleep(Duration::from_millis(50));
    node.reserve_with("c1", |r| r.network = ContainerNetwork::New).await.unwrap();
    let young = Process::start();
    let attach = async |process: crate::containers::ProcessRef| match node
        .containers
        .attach_process(id("c1"), process)
        .await
    {
        Err(AttachError::Process(error)) => error,
        answer => panic!("{answer:?}"),
    };
    assert!(matches!(attach(old.pid().into()).await, ProcessError::Older { .. }));
    assert!(matches!(attach(young.pid().into()).await, ProcessError::SharedNamespace { .. }));
    let recycled = crate::containers::ProcessRef { pid: young.pid(), start_ticks: Some(7) };
    assert!(matches!(attach(recycled).await, ProcessError::Recycled { .. }));
    assert_eq!(node.state("c1"), Some(LifecycleState::Reserved), "it still waits for its process");
}

#[tokio::test]
async fn an_id_whose_process_has_just_ended_is_free_at_once() {
    let node = node(settings());
    let mut process = Process::start();
    let pid = process.pid();
    node.reserve_with("c1", |r| r.pid = Some(pid)).await.unwrap();
    process.end();
    // However soon the next reservation comes: the table checks whether the process has ended instead of waiting for
    // the event.
    let next = node.reserve("c1").await.unwrap();
    assert!(next.new);
    assert_eq!(next.info.origin.generation, Generation(2));
}

#[tokio::test]
async fn the_dcos_dialect_can_have_one_address_with_many_ports() {
    let node = node(TableSettings { dcos_host: Some("127.0.0.9".parse().unwrap()), ..settings() });
    let dcos = async |container: &str| {
        node.reserve_with(container, |r| r.dialect = Dialect::Dcos).await.unwrap().info.address.unwrap()
    };
    let (first, second) = (dcos("c1").await, dcos("c2").await);
    assert_eq!([first.ip().to_string(), second.ip().to_string()], ["127.0.0.9", "127.0.0.9"]);
    assert!(first.port() >= 18_125 && second.port() > first.port());
    assert_ne!(node.reserve("v1").await.unwrap().info.address.unwrap().ip(), first.ip());
}

#[tokio::test]
async fn a_wanted_address_is_given_or_refused() {
    let node = node(settings());
    let wanted = |r: &mut Reservation| {
        r.wanted = Some(WantedAddress { host: Some("127.9.9.9".parse().unwrap()), port: Some(18_699) });
    };
    let info = node.reserve_with("c1", wanted).await.unwrap().info;
    assert_eq!(info.address.unwrap().to_string(), "127.9.9.9:18699");
    assert!(matches!(node.reserve_with("c2", wanted).await, Err(ReserveError::AddressTaken { .. })));
}

#[tokio::test]
async fn draining_all_reads_what_was_sent_and_accepts_no_new_container() {
    let node = node(settings());
    let info = node.reserve("c1").await.unwrap().info;
    send(info.address, "a:5|c");
    node.containers.drain_all().await;
    assert_eq!((node.state("c1"), node.sum(info.allocation)), (Some(LifecycleState::Gone), 5.0));
    assert!(matches!(node.reserve("c2").await, Err(ReserveError::Ending)));
}

#[tokio::test]
async fn a_container_that_runs_without_a_socket_is_shown_until_it_ends() {
    let node = node(settings());
    let mut process = Process::start();
    for (container, why, state) in
        [("c1", Unserved::Mute, LifecycleState::Mute), ("c2", Unserved::Lost, LifecycleState::Lost)]
    {
        let noted = node
            .containers
            .register_unserved(Reservation::new(id(container)), why, "no agent".to_owned())
            .await
            .unwrap();
        assert!(noted.new);
        assert_eq!((noted.info.state, noted.info.address), (state, None));
        let again = node
            .containers
            .register_unserved(Reservation::new(id(container)), Unserved::Mute, "no agent".to_owned())
            .await
            .unwrap();
        assert!(!again.new, "who is here stays as it is");
        assert_eq!(node.state(container), Some(state));
        node.containers.attach_process(id(container), process.pid()).await.unwrap();
    }
    process.end();
    node.until("c1", LifecycleState::Gone).await;
    node.until("c2", LifecycleState::Gone).await;
    let served = node.reserve("c1").await.unwrap().info;
    assert_eq!((served.state, served.origin.generation), (LifecycleState::Listening, Generation(2)));
    let noted = node
        .containers
        .register_unserved(Reservation::new(id("c1")), Unserved::Mute, "no agent".to_owned())
        .await
        .unwrap();
    assert_eq!(noted.info.state, LifecycleState::Listening, "one that has a socket is not mute");
}

#[tokio::test]
async fn a_container_without_a_socket_is_watched_in_whatever_network_it_is_and_gets_none_by_it() {
    let node = node(settings());
    for network in [ContainerNetwork::New, ContainerNetwork::Path("/no/such/netns".into())] {
        let mut process = Process::start();
        let reservation = Reservation { network, ..Reservation::new(id("c1")) };
        node.containers.register_unserved(reservation, Unserved::Lost, "no agent".to_owned()).await.unwrap();
        let attached = node.containers.attach_process(id("c1"), process.pid()).await.unwrap();
        assert_eq!((attached.state, attached.address), (LifecycleState::Lost, None));
        process.end();
        node.until("c1", LifecycleState::Gone).await;
    }
}

#[tokio::test]
async fn an_address_in_a_network_of_the_containers_own_is_promised_as_it_was_and_only_a_loopback_one() {
    let node = node(settings());
    let unborn = |host: &str, port| {
        let (network, wanted) = (ContainerNetwork::New, WantedAddress { host: host.parse().ok(), port });
        Reservation { network, wanted: Some(wanted), ..Reservation::new(id(&format!("at-{host}"))) }
    };
    for (host, port, expected) in [
        ("127.0.0.1", Some(18_140), "127.0.0.1:18140"),
        ("127.0.0.9", None, "127.0.0.9:18125"),
        ("", Some(18_141), "127.0.0.1:18141"),
    ] {
        let promised = node.containers.reserve(unborn(host, port)).await.unwrap().info;
        assert_eq!(promised.address, Some(expected.parse().unwrap()));
    }
    for host in ["0.0.0.0", "10.0.0.1"] {
        let refused = node.containers.reserve(unborn(host, Some(18_140))).await.unwrap_err();
        assert!(refused.to_string().contains("not a loopback address"), "{refused}");
    }
}

#[tokio::test]
async fn containers_without_a_socket_count_among_those_that_live() {
    let node = node(TableSettings { containers: 1, ..settings() });
    node.containers
        .register_unserved(Reservation::new(id("c1")), Unserved::Mute, "no agent".to_owned())
        .await
        .unwrap();
    assert!(matches!(node.reserve("c2").await, Err(ReserveError::Full { limit: 1 })));
    let noted = node
        .containers
        .register_unserved(Reservation::new(id("c2")), Unserved::Mute, "no agent".to_owned())
        .await;
    assert!(matches!(noted, Err(ReserveError::Full { limit: 1 })));
    node.containers.release(id("c1")).await.unwrap();
    node.until("c1", LifecycleState::Gone).await;
    assert!(node.reserve("c2").await.is_ok());
}

#[tokio::test]
async fn the_final_counts_of_a_container_are_not_lost_where_they_are_late_for_a_hand_over() {
    let (mut table, containers) = table(settings());
    let reserved = table.reserve_container(Reservation::new(id("c1"))).await.unwrap();
    let allocation = reserved.info.allocation;
    (0..100).for_each(|_| send(reserved.info.address, "a:1|c"));
    // Its shard has drained it, but the table has not handled that event yet.
    table.update_info(allocation, |info| info.state = LifecycleState::Draining);
    table.live.remove(&id("c1"));
    let drained = table.pool.drain_container(allocation).await.unwrap();
    let (tell, told) = oneshot::channel();
    table.tasks.spawn(async move {
        let _comes_late = told.await;
        TableEvent::Drained(allocation, drained.map(Box::new))
    });
    let (reply, leaving) = oneshot::channel::<std::io::Result<Leaving>>();
    let successor = async { leaving.await.unwrap().map(|leaving| leaving.send_outcome(false)) };
    let ((), left) =
        tokio::join!(table.hand_over_within(Duration::ZERO, SentAhead::default(), reply), successor);
    assert!(left.unwrap_err().to_string().contains("try again"));
    tell.send(()).unwrap();
    let node = Node { containers, store: Arc::clone(&table.store) };
    tokio::spawn(table.run());
    let info = node.until("c1", LifecycleState::Gone).await;
    assert_eq!(info.last.as_ref().unwrap().accounting.received, 100);
    assert!(node.reserve("c2").await.is_ok(), "everything goes on");
}

#[tokio::test]
async fn a_container_that_was_on_no_shard_keeps_no_hand_over_waiting() {
    let (mut table, containers) = table(settings());
    let noted = table
        .register_unserved(&Reservation::new(id("c1")), Unserved::Mute, "no agent".to_owned())
        .await
        .unwrap();
    // The reply that it has no counts waits until the containers are back on their shards.
    table.update_info(noted.info.allocation, |info| info.state = LifecycleState::Draining);
    table.tasks.spawn(std::future::pending());
    let (reply, leaving) = oneshot::channel::<std::io::Result<Leaving>>();
    let successor = async { leaving.await.unwrap().map(|leaving| leaving.send_outcome(true)) };
    let ((), left) =
        tokio::join!(table.hand_over_within(Duration::ZERO, SentAhead::default(), reply), successor);
    left.unwrap();
    drop(containers);
}

#[tokio::test]
async fn a_container_that_is_being_drained_goes_over_and_is_drained_there() {
    let (mut old, _containers) = table(settings());
    let reserved = old.reserve_container(Reservation::new(id("c1"))).await.unwrap();
    let address = reserved.info.address;
    (0..100).for_each(|_| send(address, "a:1|c"));
    old.release_container(&id("c1")).unwrap();
    let (reply, leaving) = oneshot::channel::<std::io::Result<Leaving>>();
    let successor = async {
        let Leaving { manifest, descriptors, outcome, .. } = leaving.await.unwrap().unwrap();
        let handed: Vec<_> =
            manifest.containers.iter().map(|c| (c.image.state, c.udp, c.aggregator.is_some())).collect();
        assert_eq!(handed, [(LifecycleState::Draining, true, true)]);
        let arriving = manifest
            .into_arriving(crate::containers::Arrived::default(), descriptors, &Arc::default())
            .unwrap();
        let (mut new, containers) = table(settings());
        new.take_over_containers(arriving).await.unwrap();
        outcome.send(true).unwrap();
        (new, containers)
    };
    let ((), (new, containers)) =
        tokio::join!(old.hand_over_within(Duration::ZERO, SentAhead::new(), reply), successor);
    let node = Node { containers, store: Arc::clone(&new.store) };
    assert_eq!(node.state("c1"), Some(LifecycleState::Draining));
    tokio::spawn(new.run());
    let info = node.until("c1", LifecycleState::Gone).await;
    let counts = &info.last.as_ref().unwrap().accounting;
    assert_eq!((counts.received, counts.in_records), (100, 100));
    assert_eq!(node.sum(info.allocation), 100.0);
}
