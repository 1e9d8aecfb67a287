use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command};

use super::*;
use crate::aggregate;
use crate::containers::{self, ContainerTable, LifecycleState};
use crate::net::clock::Clock;
use crate::nri::messages::{ContainerState, LinuxContainer, LinuxNamespace};
use crate::nri::selection::SelectionMode;
use crate::shard::{ShardPlan, ShardPool};
use crate::store::Store;

/// A plugin with a container table, and the runtime's side of its calls.
pub(in crate::nri) struct Node {
    pub(in crate::nri) plugin: Plugin,
    pub(in crate::nri) containers: ContainerTableHandle,
    pub(in crate::nri) stats: Arc<Stats>,
    settings: watch::Sender<Arc<PluginSettings>>,
}

impl Node {
    pub(in crate::nri) fn new(containers: usize) -> Self {
        let (node, table) = Self::with_table(containers);
        tokio::spawn(table.run());
        node
    }

    /// A node whose container table does not reply until it is run.
    fn with_table(containers: usize) -> (Self, ContainerTable) {
        let store = Arc::new(Store::new(1, 30));
        let pool = ShardPool::start(
            &ShardPlan::for_tests(),
            &store,
            &Arc::new(aggregate::AggregatorSettings::default()),
            Clock::default(),
        );
        let table_settings = containers::TableSettings::for_tests(containers, 18_626);
        let (table, containers) = ContainerTable::new(table_settings, Arc::new(pool.unwrap()), store);
        let (settings, told) = watch::channel(Arc::new(PluginSettings::default()));
        let stats = Arc::new(Stats::default());
        let plugin = Plugin::new(containers.clone(), told, Arc::clone(&stats));
        (Self { plugin, containers, stats, settings }, table)
    }

    fn told(&self, settings: PluginSettings) {
        self.settings.send_replace(Arc::new(settings));
    }

    async fn call(&mut self, method: &str, message: &impl prost::Message) -> Result<Vec<u8>, TtrpcStatus> {
        let service = PLUGIN_SERVICE.to_owned();
        let payload = message.encode_to_vec();
        self.plugin.call(&TtrpcRequest { service, method: method.to_owned(), payload, timeout_nano: 0 }).await
    }

    async fn create(&mut self, container: &NriContainer) -> Option<SocketAddr> {
        let answer = self.call("CreateContainer", &about(container)).await.unwrap();
        let adjustment = CreateContainerAnswer::decode(answer.as_slice()).unwrap().adjust?;
        let of = |name: &str| adjustment.env.iter().find(|env| env.key == name).unwrap().value.clone();
        Some(format!("{}:{}", of("STATSD_UDP_HOST"), of("STATSD_UDP_PORT")).parse().unwrap())
    }

    async fn happens(&mut self, method: &str, container: &NriContainer) {
        assert_eq!(self.call(method, &about(container)).await, Ok(Vec::new()), "{method}");
    }

    async fn synchronize(&mut self, containers: &[NriContainer]) {
        let all = Synchronize { pods: vec![pod()], containers: containers.to_vec(), more: false };
        let answer = self.call("Synchronize", &all).await.unwrap();
        assert_eq!(SynchronizeAnswer::decode(answer.as_slice()).unwrap(), SynchronizeAnswer { more: false });
    }

    fn info(&self, id: &str) -> Option<Arc<ContainerInfo>> {
        self.containers.directory().find_container(&ContainerId::new(id).unwrap())
    }

    fn state(&self, id: &str) -> Option<LifecycleState> {
        self.info(id).map(|info| info.state)
    }

    async fn until(&self, id: &str, state: LifecycleState) {
        for _ in 0..5000 {
            if self.state(id) == Some(state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{id} is {:?}, not {state}", self.state(id));
    }

    fn counted(&self, outcome: NriOutcome) -> u64 {
        self.stats.nri.count_for(outcome)
    }
}

pub(in crate::nri) fn pod() -> PodSandbox {
    PodSandbox {
        id: "s1".to_owned(),
        name: "web-0".to_owned(),
        uid: "u-1".to_owned(),
        namespace: "shop".to_owned(),
        ..PodSandbox::default()
    }
}

pub(in crate::nri) fn container(id: &str) -> NriContainer {
    // Runtimes also give a path for the node's own network.
    let network = LinuxNamespace { kind: "network".to_owned(), path: "/proc/self/ns/net".to_owned() };
    NriContainer {
        id: id.to_owned(),
        pod_sandbox_id: "s1".to_owned(),
        name: "web".to_owned(),
        linux: Some(LinuxContainer { namespaces: vec![network] }),
        ..NriContainer::default()
    }
}

pub(in crate::nri) fn about(container: &NriContainer) -> About {
    About { pod: Some(pod()), container: Some(container.clone()) }
}

fn running(id: &str) -> NriContainer {
    NriContainer { state: ContainerState::Running as i32, ..container(id) }
}

fn with_address(container: NriContainer, address: &str) -> NriContainer {
    let annotations = HashMap::from([("tallyport.address".to_owned(), address.to_owned())]);
    NriContainer { annotations, ..container }
}

struct Process(Child);

impl Process {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_container_is_served_from_its_creation_to_its_end() {
    let mut node = Node::new(10);
    let address = node.create(&container("c1")).await.unwrap();
    let info = node.info("c1").unwrap();
    assert_eq!((info.state, info.address, info.pid), (LifecycleState::Listening, Some(address), None));
    assert_eq!(info.origin.task_id.as_str(), "shop_web-0_u-1");
    let process = Process::start();
    let started = NriContainer { pid: process.0.id(), ..container("c1") };
    node.happens("StartContainer", &started).await;
    assert_eq!(node.info("c1").unwrap().pid, Some(process.0.id().try_into().unwrap()));
    drop(process);
    node.until("c1", LifecycleState::Gone).await;
    node.happens("StopContainer", &started).await;
    node.happens("RemoveContainer", &started).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Injected)), (Some(LifecycleState::Gone), 1));
    assert_eq!(node.stats.nri.handling_times().len(), 4);
}

#[tokio::test]
async fn without_its_process_the_runtimes_word_ends_a_container() {
    for (method, event) in [("StopContainer", None), ("StateChange", Some(NriEvent::RemoveContainer))] {
        let mut node = Node::new(10);
        node.create(&container("c1")).await.unwrap();
        node.happens("StartContainer", &container("c1")).await;
        assert_eq!(node.state("c1"), Some(LifecycleState::Listening), "it is served without a process");
        match event {
            None => node.happens(method, &container("c1")).await,
            Some(event) => {
                let About { pod, container } = about(&container("c1"));
                let change = StateChange { event: event as i32, pod, container };
                assert_eq!(node.call(method, &change).await, Ok(Vec::new()));
            }
        }
        node.until("c1", LifecycleState::Gone).await;
    }
}

#[tokio::test]
async fn both_generations_of_the_wire_attach_the_process() {
    let process = Process::start();
    let started = NriContainer { pid: process.0.id(), ..container("c1") };
    let mut node = Node::new(10);
    node.create(&started).await.unwrap();
    let About { pod, container } = about(&started);
    let change = StateChange { event: NriEvent::StartContainer as i32, pod, container };
    node.call("StateChange", &change).await.unwrap();
    assert!(node.info("c1").unwrap().pid.is_some());
    let mut node = Node::new(10);
    node.create(&started).await.unwrap();
    node.happens("PostStartContainer", &started).await;
    assert!(node.info("c1").unwrap().pid.is_some());
}

#[tokio::test]
async fn containers_left_alone_are_counted_and_get_nothing() {
    for (selection, outcome) in [
        (SelectionRules { mode: SelectionMode::Observe, ..SelectionRules::default() }, NriOutcome::Observed),
        (SelectionRules { mode: SelectionMode::OptIn, ..SelectionRules::default() }, NriOutcome::OptedOut),
        (
            SelectionRules { namespaces: vec![crate::model::Glob::new("bank")], ..SelectionRules::default() },
            NriOutcome::Excluded,
        ),
        (
            SelectionRules {
                sandboxed_handlers: vec![crate::model::Glob::new("*")],
                ..SelectionRules::default()
            },
            NriOutcome::Sandboxed,
        ),
    ] {
        let mut node = Node::new(10);
        node.told(PluginSettings { selection, presets: Vec::new() });
        assert_eq!(node.create(&container("c1")).await, None, "{outcome:?}");
        node.happens("StartContainer", &container("c1")).await;
        assert_eq!((node.counted(outcome), node.state("c1")), (1, None), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_container_that_cannot_be_served_starts_all_the_same_and_is_shown_as_mute() {
    let mut node = Node::new(0);
    assert_eq!(node.create(&container("c1")).await, None);
    assert_eq!(node.counted(NriOutcome::Failed), 1);
    let mut node = Node::new(10);
    let missing = LinuxNamespace { kind: "network".to_owned(), path: "/no/such/netns".to_owned() };
    let lost = NriContainer { linux: Some(LinuxContainer { namespaces: vec![missing] }), ..container("c1") };
    assert_eq!(node.create(&lost).await, None);
    node.happens("StartContainer", &lost).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Mute), 1));
    let reason = node.info("c1").unwrap().reason.clone().unwrap();
    assert!(reason.contains("/no/such/netns is not a network namespace"), "{reason}");
    let failing = node.stats.nri.failure_streak().unwrap();
    assert_eq!((failing.containers, failing.why.as_str()), (1, reason.as_str()));
    node.happens("StopContainer", &lost).await;
    node.until("c1", LifecycleState::Gone).await;
    node.create(&container("c2")).await.unwrap();
    assert_eq!(node.stats.nri.failure_streak(), None, "the next one got its socket");
}

#[tokio::test]
async fn a_container_whose_reservation_came_too_late_is_mute_and_keeps_no_socket() {
    let (mut node, table) = Node::with_table(10);
    tokio::time::pause();
    assert_eq!(node.create(&container("c1")).await, None, "the table has not answered in time");
    tokio::time::resume();
    tokio::spawn(table.run());
    node.happens("StartContainer", &container("c1")).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Mute), 1));
    let info = node.info("c1").unwrap();
    assert_eq!((info.address, info.origin.generation.0), (None, 2), "the reservation was the first");
    assert!(info.reason.as_ref().unwrap().contains("did not answer in time"), "{info:?}");
    node.happens("StopContainer", &container("c1")).await;
    node.until("c1", LifecycleState::Gone).await;
}

#[tokio::test]
async fn a_container_that_another_launcher_served_after_the_plugin_could_not_stays_that_ones() {
    let (mut node, table) = Node::with_table(10);
    tokio::time::pause();
    assert_eq!(node.create(&container("c1")).await, None);
    tokio::time::resume();
    tokio::spawn(table.run());
    let about = about(&container("c1"));
    let same = identity::build_reservation(&about.pod.unwrap(), &about.container.unwrap()).unwrap();
    node.containers.reserve(same).await.unwrap();
    node.happens("StartContainer", &container("c1")).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Listening), 0));
    node.synchronize(&[running("c1")]).await;
    node.happens("StopContainer", &container("c1")).await;
    assert_eq!(node.state("c1"), Some(LifecycleState::Listening), "its launcher releases it");
}

#[tokio::test]
async fn a_table_that_hangs_holds_up_no_event() {
    let (mut node, table) = Node::with_table(10);
    let events = ["CreateContainer", "StartContainer", "StopContainer", "RemoveContainer"];
    for method in events {
        let began = Instant::now();
        tokio::time::pause();
        node.call(method, &about(&container("c1"))).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{method}: the runtime disconnects the plugin");
        tokio::time::resume();
    }
    drop(table);
}

#[tokio::test]
async fn reasons_of_containers_that_never_start_do_not_add_up() {
    let mut node = Node::new(0);
    for n in 0..REFUSED + 10 {
        node.create(&container(&format!("c{n}"))).await;
    }
    assert_eq!(node.plugin.to_state().refused.len(), REFUSED);
    node.happens("RemoveContainer", &container("c0")).await;
    assert_eq!(node.plugin.to_state().refused.len(), REFUSED - 1);
}

#[tokio::test]
async fn an_id_that_is_none_stops_nothing() {
    let mut node = Node::new(10);
    for id in ["", "../../etc/shadow", "a\u{7}"] {
        assert_eq!(node.create(&container(id)).await, None);
        for method in ["StartContainer", "StopContainer", "RemoveContainer"] {
            node.happens(method, &container(id)).await;
        }
    }
    assert!(node.containers.directory().all_containers().is_empty());
}

#[tokio::test]
async fn presets_come_from_the_configuration() {
    let mut node = Node::new(10);
    node.told(PluginSettings { presets: vec!["datadog".to_owned()], ..PluginSettings::default() });
    let answer = node.call("CreateContainer", &about(&container("c1"))).await.unwrap();
    let answer = CreateContainerAnswer::decode(answer.as_slice()).unwrap();
    assert!(answer.adjust.unwrap().env.iter().any(|env| env.key == "DD_DOGSTATSD_URL"));
}

#[tokio::test]
async fn every_call_of_the_protocol_is_answered_and_no_other() {
    let mut node = Node::new(10);
    let configured = node.call("Configure", &Configure::default()).await.unwrap();
    // Bits 3, 5, 9 and 10: events 4, 6, 10 and 11.
    assert_eq!(ConfigureAnswer::decode(configured.as_slice()).unwrap().events, 0b110_0010_1000);
    for method in [
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "UpdatePodSandbox",
        "PostCreateContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "Shutdown",
    ] {
        node.happens(method, &container("c1")).await;
    }
    let unknown = node.call("ValidateContainerAdjustment", &about(&container("c1"))).await;
    assert_eq!(unknown.unwrap_err().code, UNIMPLEMENTED);
    let service = "another.Service".to_owned();
    let other = TtrpcRequest { service, method: "Configure".to_owned(), ..TtrpcRequest::default() };
    assert_eq!(node.plugin.call(&other).await.unwrap_err().code, UNIMPLEMENTED);
}

#[tokio::test]
async fn what_cannot_be_read_stops_no_container() {
    let mut node = Node::new(10);
    let garbled = |method: &str| {
        let (service, method) = (PLUGIN_SERVICE.to_owned(), method.to_owned());
        TtrpcRequest { service, method, payload: vec![0x0a, 0xff], timeout_nano: 0 }
    };
    for method in ["CreateContainer", "StartContainer", "StopContainer", "StateChange"] {
        assert_eq!(node.plugin.call(&garbled(method)).await, Ok(Vec::new()), "{method}");
    }
    assert_eq!(node.plugin.call(&garbled("Synchronize")).await.unwrap_err().code, INVALID);
    assert!(node.containers.directory().all_containers().is_empty());
}

#[tokio::test]
async fn a_container_that_never_heard_of_its_address_is_mute() {
    let mut node = Node::new(10);
    let address = node.create(&container("c1")).await.unwrap();
    node.synchronize(&[with_address(running("c1"), &address.to_string())]).await;
    assert_eq!(node.state("c1"), Some(LifecycleState::Listening));
    // The runtime timed out before it got the response, and started it without a socket.
    node.synchronize(&[running("c1")]).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Mute), 1));
    let reason = node.info("c1").unwrap().reason.clone().unwrap();
    assert!(reason.contains("did not wait for the agent's answer"), "{reason}");
    let launched = Reservation::new(ContainerId::new("run-7").unwrap());
    node.containers.reserve(launched).await.unwrap();
    node.synchronize(&[running("c1"), running("run-7")]).await;
    node.synchronize(&[running("c1"), running("run-7")]).await;
    assert_eq!(node.state("run-7"), Some(LifecycleState::Listening), "another launcher knows what it does");
}

#[tokio::test]
async fn what_is_known_is_kept_and_what_is_gone_is_released() {
    let mut node = Node::new(10);
    for id in ["c1", "c2", "c3"] {
        node.create(&container(id)).await.unwrap();
        node.happens("StartContainer", &container(id)).await;
    }
    let address = node.info("c1").unwrap().address;
    let stopped = NriContainer { state: ContainerState::Stopped as i32, ..container("c3") };
    let kept = with_address(running("c1"), &address.unwrap().to_string());
    node.synchronize(&[kept, stopped]).await;
    node.until("c2", LifecycleState::Gone).await;
    node.until("c3", LifecycleState::Gone).await;
    let info = node.info("c1").unwrap();
    assert_eq!((info.state, info.address), (LifecycleState::Listening, address));
}

#[tokio::test]
async fn a_container_of_another_launcher_is_not_released() {
    let mut node = Node::new(10);
    let other = Reservation::new(ContainerId::new("run-7").unwrap());
    node.containers.reserve(other).await.unwrap();
    node.synchronize(&[]).await;
    assert_eq!(node.state("run-7"), Some(LifecycleState::Listening));
}

#[tokio::test]
async fn a_running_container_without_an_address_is_mute_until_it_ends() {
    let mut node = Node::new(10);
    let process = Process::start();
    let mute = NriContainer { pid: process.0.id(), ..running("c1") };
    node.synchronize(std::slice::from_ref(&mute)).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Mute), 1));
    let info = node.info("c1").unwrap();
    assert_eq!(info.origin.task_id.as_str(), "shop_web-0_u-1");
    assert!(info.reason.as_ref().unwrap().contains("not connected to the container runtime"), "{info:?}");
    node.synchronize(&[mute]).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Mute), 1));
    drop(process);
    node.until("c1", LifecycleState::Gone).await;
}

#[tokio::test]
async fn the_address_of_an_earlier_life_is_opened_again() {
    let mut node = Node::new(10);
    node.synchronize(&[with_address(running("c1"), "127.77.1.1:18626")]).await;
    let info = node.info("c1").unwrap();
    assert_eq!((info.state, node.counted(NriOutcome::Restored)), (LifecycleState::Listening, 1));
    assert_eq!(info.address, Some("127.77.1.1:18626".parse().unwrap()));
}

#[tokio::test]
async fn a_container_that_starts_after_a_restart_has_the_address_it_was_created_with() {
    let mut node = Node::new(10);
    node.synchronize(&[with_address(container("c1"), "127.77.1.4:18626")]).await;
    assert_eq!(node.state("c1"), None, "it may never start");
    node.happens("StartContainer", &with_address(container("c1"), "127.77.1.4:18626")).await;
    let info = node.info("c1").unwrap();
    assert_eq!(
        (info.state, info.address),
        (LifecycleState::Listening, Some("127.77.1.4:18626".parse().unwrap()))
    );
    assert_eq!((node.counted(NriOutcome::Restored), node.counted(NriOutcome::Mute)), (1, 0));
    node.plugin.look_over(Instant::now() + STARTS_WITHIN * 2).await;
    assert_eq!(node.state("c1"), Some(LifecycleState::Listening), "it has started");
}

#[tokio::test]
async fn the_address_of_a_running_container_is_opened_however_late_the_table_gets_to_it() {
    let (mut node, table) = Node::with_table(10);
    let running = with_address(running("c1"), "127.77.1.5:18626");
    tokio::time::pause();
    node.synchronize(std::slice::from_ref(&running)).await;
    tokio::time::resume();
    assert_eq!(node.state("c1"), None, "the table has not answered in time");
    tokio::spawn(table.run());
    node.until("c1", LifecycleState::Listening).await;
    // The next request is handled after the table would have released it.
    node.synchronize(std::slice::from_ref(&running)).await;
    let info = node.info("c1").unwrap();
    assert_eq!(
        (info.state, info.address),
        (LifecycleState::Listening, Some("127.77.1.5:18626".parse().unwrap()))
    );
    assert_eq!(info.origin.generation.0, 1);
    node.happens("StopContainer", &running).await;
    node.until("c1", LifecycleState::Gone).await;
}

#[tokio::test]
async fn a_container_of_another_launcher_is_not_claimed_while_the_table_hangs() {
    let (mut node, table) = Node::with_table(10);
    tokio::time::pause();
    assert_eq!(node.create(&container("c1")).await, None, "the plugin could not serve it");
    tokio::time::resume();
    let about = about(&container("c1"));
    let same = identity::build_reservation(&about.pod.unwrap(), &about.container.unwrap()).unwrap();
    let mut table = Box::pin(table.run());
    let launcher = node.containers.clone();
    tokio::select! {
        () = &mut table => unreachable!("it runs as long as there are callers"),
        reserved = launcher.reserve(same) => drop(reserved.unwrap()),
    }
    // The table does nothing again.
    tokio::time::pause();
    node.happens("StartContainer", &container("c1")).await;
    tokio::time::resume();
    tokio::spawn(table);
    node.happens("StopContainer", &container("c1")).await;
    node.synchronize(&[]).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Mute)), (Some(LifecycleState::Listening), 0));
}

#[tokio::test]
async fn an_address_that_a_stranger_has_taken_is_lost() {
    let _stranger = UdpSocket::bind("127.77.1.2:18626").unwrap();
    let mut node = Node::new(10);
    node.synchronize(&[with_address(running("c1"), "127.77.1.2:18626")]).await;
    assert_eq!((node.state("c1"), node.counted(NriOutcome::Lost)), (Some(LifecycleState::Lost), 1));
    // Two containers that claim the same address: the first gets it.
    node.synchronize(&[
        with_address(running("c2"), "127.77.1.3:18626"),
        with_address(running("c3"), "127.77.1.3:18626"),
    ])
    .await;
    assert_eq!(
        (node.state("c2"), node.state("c3")),
        (Some(LifecycleState::Listening), Some(LifecycleState::Lost))
    );
}

#[tokio::test]
async fn a_list_that_comes_in_parts_is_compared_when_it_is_whole() {
    let mut node = Node::new(10);
    let part = Synchronize { containers: vec![running("c1")], more: true, ..Synchronize::default() };
    let answer = node.call("Synchronize", &part).await.unwrap();
    assert!(SynchronizeAnswer::decode(answer.as_slice()).unwrap().more, "the rest is waited for");
    assert_eq!(node.state("c1"), None);
    node.synchronize(&[]).await;
    assert_eq!(node.state("c1"), Some(LifecycleState::Mute));
}

#[tokio::test]
async fn a_container_that_is_not_selected_is_not_mute() {
    let mut node = Node::new(10);
    let selection = SelectionRules { mode: SelectionMode::OptIn, ..SelectionRules::default() };
    node.told(PluginSettings { selection, presets: Vec::new() });
    node.synchronize(&[running("c1")]).await;
    assert_eq!(node.state("c1"), None);
}

#[tokio::test]
async fn what_was_created_and_never_started_is_released_after_a_while() {
    let mut node = Node::new(10);
    node.create(&container("c1")).await.unwrap();
    node.create(&container("c2")).await.unwrap();
    node.happens("StartContainer", &container("c2")).await;
    let now = Instant::now();
    node.plugin.look_over(now + STARTS_WITHIN / 2).await;
    assert_eq!(node.state("c1"), Some(LifecycleState::Listening));
    node.plugin.look_over(now + STARTS_WITHIN * 2).await;
    node.until("c1", LifecycleState::Gone).await;
    assert_eq!(node.state("c2"), Some(LifecycleState::Listening));
}

#[tokio::test]
async fn an_agent_that_ends_holds_up_no_start() {
    let mut node = Node::new(10);
    node.containers.drain_all().await;
    assert_eq!(node.create(&container("c1")).await, None);
    node.happens("StartContainer", &container("c1")).await;
    assert_eq!(node.state("c1"), None);
}
