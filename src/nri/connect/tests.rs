use std::sync::Arc;

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::nri::messages::{
    Configure, ConfigureAnswer, CreateContainerAnswer, Empty, PLUGIN_SERVICE, RUNTIME_SERVICE,
    RegisterPlugin, Synchronize, SynchronizeAnswer, TtrpcRequest, TtrpcResponse, TtrpcStatus,
};
use crate::nri::mux::{self, Connection, Demux};
use crate::nri::plugin::tests::{Node, about, container, pod};
use crate::nri::ttrpc::{self, FrameAssembler, MessageKind, TtrpcFrame};
use crate::shutdown::{DrainTrigger, drain_channel};

/// A plugin connected to a socket of the test, which acts as the runtime.
struct Setting {
    listener: UnixListener,
    node: (crate::containers::ContainerTableHandle, Arc<crate::stats::Stats>),
    drain: DrainTrigger,
    suspender: Suspender,
    running: JoinHandle<()>,
    directory: Arc<tempfile::TempDir>,
}

impl Setting {
    fn new() -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()), None)
    }

    /// The plugin of a process that takes over from another.
    fn after(old: &Self, carried: Carried) -> Self {
        std::fs::remove_file(old.socket()).unwrap();
        Self::at(Arc::clone(&old.directory), Some(carried))
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nri.sock")
    }

    fn at(directory: Arc<tempfile::TempDir>, carried: Option<Carried>) -> Self {
        let socket = directory.path().join("nri.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (trigger, hears) = drain_channel();
        let Node { plugin, containers, stats, .. } = Node::new(10);
        let (suspender, suspensions) = suspension_channel();
        let endpoint = Endpoint { socket, index: 7 };
        let running = tokio::spawn(run(endpoint, plugin, hears, suspensions, carried));
        Self { listener, node: (containers, stats), drain: trigger, suspender, running, directory }
    }

    fn link(&self) -> Link {
        self.node.1.nri.current_link().0
    }

    async fn until(&self, link: Link) {
        while self.link() != link {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn accept(&self) -> Runtime {
        let (stream, _) = self.listener.accept().await.unwrap();
        Runtime {
            stream,
            demux: Demux::default(),
            plugin: FrameAssembler::default(),
            runtime: FrameAssembler::default(),
            next: 1,
        }
    }
}

/// The runtime's side.
struct Runtime {
    stream: UnixStream,
    demux: Demux,
    /// Responses of the plugin, and its calls.
    plugin: FrameAssembler,
    runtime: FrameAssembler,
    next: u32,
}

impl Runtime {
    async fn frame(&mut self, connection: Connection) -> TtrpcFrame {
        loop {
            let assembler = match connection {
                Connection::Plugin => &mut self.plugin,
                Connection::Runtime => &mut self.runtime,
            };
            if let Some(frame) = assembler.next_frame().unwrap() {
                return frame;
            }
            // A few bytes at a time, so that everything is split.
            let mut bytes = [0; 100];
            let n = self.stream.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the plugin closed the connection");
            let (plugin, runtime) = (&mut self.plugin, &mut self.runtime);
            let each = |connection, piece: &[u8]| match connection {
                Connection::Plugin => plugin.push(piece),
                Connection::Runtime => runtime.push(piece),
            };
            self.demux.push(&bytes[..n], each).unwrap();
        }
    }

    async fn registered(&mut self) -> (u32, RegisterPlugin) {
        let frame = self.frame(Connection::Runtime).await;
        let request = TtrpcRequest::decode(frame.data).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), (RUNTIME_SERVICE, "RegisterPlugin"));
        (frame.stream, RegisterPlugin::decode(request.payload.as_slice()).unwrap())
    }

    async fn answer(&mut self, stream: u32, answer: Result<Vec<u8>, TtrpcStatus>) {
        let frames = mux::split_into_frames(Connection::Runtime, &ttrpc::encode_answer(stream, answer));
        self.stream.write_all(&frames).await.unwrap();
    }

    async fn call<A: prost::Message + Default>(&mut self, method: &str, message: &impl prost::Message) -> A {
        let call = ttrpc::encode_call(self.next, PLUGIN_SERVICE, method, message);
        self.stream.write_all(&mux::split_into_frames(Connection::Plugin, &call)).await.unwrap();
        let frame = self.frame(Connection::Plugin).await;
        assert_eq!((frame.stream, frame.kind), (self.next, MessageKind::Response));
        self.next += 2;
        let response = TtrpcResponse::decode(frame.data).unwrap();
        assert_eq!(response.status, None, "{method}");
        A::decode(response.payload.as_slice()).unwrap()
    }

    async fn takes_the_plugin(&mut self) {
        let (stream, _) = self.registered().await;
        // Before the response to its registration, as runtimes do.
        let _events: ConfigureAnswer = self.call("Configure", &Configure::default()).await;
        self.answer(stream, Ok(Vec::new())).await;
        let all = Synchronize { pods: vec![pod()], ..Synchronize::default() };
        let _done: SynchronizeAnswer = self.call("Synchronize", &all).await;
    }
}

#[tokio::test]
async fn the_plugin_registers_and_serves() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    let (stream, plugin) = runtime.registered().await;
    assert_eq!((stream, plugin.name.as_str(), plugin.index.as_str()), (1, "tallyport", "07"));
    assert!(!setting.node.1.nri.is_connected());
    let all = Synchronize::default();
    let _events: ConfigureAnswer = runtime.call("Configure", &Configure::default()).await;
    let _done: SynchronizeAnswer = runtime.call("Synchronize", &all).await;
    runtime.answer(stream, Ok(Vec::new())).await;
    assert!(setting.node.1.nri.is_connected());
    let answer: CreateContainerAnswer = runtime.call("CreateContainer", &about(&container("c1"))).await;
    assert_eq!(answer.adjust.unwrap().env.len(), 2);
    let _ended: Empty = runtime.call("RemoveContainer", &about(&container("c1"))).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again_and_hurts_no_container() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    runtime.takes_the_plugin().await;
    let _served: CreateContainerAnswer = runtime.call("CreateContainer", &about(&container("c1"))).await;
    let address = setting.node.0.directory().all_containers()[0].address;
    // In the middle of a message.
    runtime.stream.write_all(&[0, 0, 0, 1, 0, 0]).await.unwrap();
    drop(runtime);
    let mut runtime = setting.accept().await;
    assert!(!setting.node.1.nri.is_connected());
    let (_, plugin) = runtime.registered().await;
    assert_eq!(plugin.name, "tallyport");
    let info = &setting.node.0.directory().all_containers()[0];
    assert_eq!((info.state.is_live(), info.address), (true, address));
}

#[tokio::test]
async fn what_is_no_runtime_is_left_and_tried_again() {
    let setting = Setting::new();
    for nonsense in [&[0xff; 64][..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let mut runtime = setting.accept().await;
        runtime.stream.write_all(nonsense).await.unwrap();
    }
    setting.accept().await.takes_the_plugin().await;
}

#[tokio::test]
async fn a_plugin_that_is_refused_tries_again() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    let (stream, _) = runtime.registered().await;
    runtime.answer(stream, Err(TtrpcStatus { code: 3, message: "no".to_owned() })).await;
    setting.accept().await.takes_the_plugin().await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_busy_is_waited_for_as_long_as_the_connection_lives() {
    let setting = Setting::new();
    let mut busy = setting.accept().await;
    busy.registered().await;
    // As long as containerd waits for a container to stop.
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(setting.link(), Link::Registering);
    let _events: ConfigureAnswer = busy.call("Configure", &Configure::default()).await;
    let _done: SynchronizeAnswer = busy.call("Synchronize", &Synchronize::default()).await;
    assert_eq!(setting.link(), Link::Connected);
}

#[tokio::test]
async fn the_plugin_is_connected_after_the_last_part_of_the_list() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    runtime.registered().await;
    let _events: ConfigureAnswer = runtime.call("Configure", &Configure::default()).await;
    let part = Synchronize { pods: vec![pod()], more: true, ..Synchronize::default() };
    let _more: SynchronizeAnswer = runtime.call("Synchronize", &part).await;
    assert_eq!(setting.link(), Link::Registering);
    let _done: SynchronizeAnswer = runtime.call("Synchronize", &Synchronize::default()).await;
    assert_eq!(setting.link(), Link::Connected);
}

#[tokio::test]
async fn another_process_goes_on_with_the_connection_in_the_middle_of_a_message() {
    let mut old = Setting::new();
    let mut runtime = old.accept().await;
    runtime.takes_the_plugin().await;
    let _served: CreateContainerAnswer = runtime.call("CreateContainer", &about(&container("c1"))).await;
    let call = ttrpc::encode_call(runtime.next, PLUGIN_SERVICE, "CreateContainer", &about(&container("c2")));
    let frames = mux::split_into_frames(Connection::Plugin, &call);
    let (begun, rest) = frames.split_at(frames.len() / 2);
    runtime.stream.write_all(begun).await.unwrap();
    let suspended = loop {
        let suspended = old.suspender.suspend_plugin().await.unwrap();
        // Until the old process has read what was sent.
        if suspended.carried.state.len() > begun.len() / 2 {
            break suspended;
        }
        suspended.report_outcome(false);
    };
    let (state, socket) = (suspended.carried.state.clone(), suspended.carried.socket.as_ref());
    let socket = Some(socket.unwrap().try_clone().unwrap());
    let new = Setting::after(&old, Carried { state, socket });
    suspended.report_outcome(true);
    let old_running = &mut old.running;
    old_running.await.unwrap();
    new.until(Link::Connected).await;
    runtime.stream.write_all(rest).await.unwrap();
    let frame = runtime.frame(Connection::Plugin).await;
    assert_eq!(frame.stream, runtime.next);
    let response = TtrpcResponse::decode(frame.data).unwrap();
    let answer = CreateContainerAnswer::decode(response.payload.as_slice()).unwrap();
    assert_eq!(answer.adjust.unwrap().env.len(), 2);
    runtime.next += 2;
    // It knows that c1 was created and has yet to start.
    let (containers, ours) = (new.node.0.clone(), crate::model::ContainerId::new("c2").unwrap());
    assert!(containers.directory().find_container(&ours).is_some());
    let again = new.suspender.suspend_plugin().await.unwrap();
    assert!(again.carried.state.windows(2).any(|id| id == b"c1"), "what the old one knew goes on");
    again.report_outcome(false);
    let _ended: Empty = runtime.call("RemoveContainer", &about(&container("c2"))).await;
}

#[tokio::test]
async fn a_connection_to_another_socket_is_not_gone_on_with() {
    let old = Setting::new();
    let mut runtime = old.accept().await;
    runtime.takes_the_plugin().await;
    let suspended = old.suspender.suspend_plugin().await.unwrap();
    let socket = suspended.carried.socket.as_ref().unwrap().try_clone().unwrap();
    let carried = Carried { state: suspended.carried.state.clone(), socket: Some(socket) };
    let new = Setting::at(Arc::new(tempfile::tempdir().unwrap()), Some(carried));
    suspended.report_outcome(true);
    new.accept().await.takes_the_plugin().await;
    assert_eq!(runtime.stream.read(&mut [0; 10]).await.unwrap(), 0, "the runtime before sees the plugin go");
}

#[tokio::test]
async fn a_plugin_goes_on_where_no_process_takes_over() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    runtime.takes_the_plugin().await;
    setting.suspender.suspend_plugin().await.unwrap().report_outcome(false);
    drop(setting.suspender.suspend_plugin().await.unwrap());
    let answer: CreateContainerAnswer = runtime.call("CreateContainer", &about(&container("c1"))).await;
    assert_eq!(answer.adjust.unwrap().env.len(), 2);
}

#[tokio::test]
async fn a_connection_that_is_not_registered_is_made_again_by_the_other_process() {
    let old = Setting::new();
    let mut busy = old.accept().await;
    busy.registered().await;
    let suspended = old.suspender.suspend_plugin().await.unwrap();
    assert!(suspended.carried.socket.is_none());
    let state = suspended.carried.state.clone();
    let new = Setting::after(&old, Carried { state, socket: None });
    suspended.report_outcome(true);
    new.accept().await.takes_the_plugin().await;
    assert_eq!(new.link(), Link::Connected);
}

#[tokio::test]
async fn a_plugin_without_a_runtime_can_be_suspended() {
    let setting = Setting::new();
    let mut refusing = setting.accept().await;
    let (stream, _) = refusing.registered().await;
    std::fs::remove_file(setting.socket()).unwrap();
    refusing.answer(stream, Err(TtrpcStatus { code: 3, message: "no".to_owned() })).await;
    while !matches!(setting.link(), Link::Absent { .. }) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let suspended = setting.suspender.suspend_plugin().await.unwrap();
    assert!(suspended.carried.socket.is_none());
    suspended.report_outcome(true);
    setting.running.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_of_another_process_costs_a_connection_and_no_more() {
    let carried = Carried { state: b"nonsense".to_vec(), socket: None };
    let setting = Setting::at(Arc::new(tempfile::tempdir().unwrap()), Some(carried));
    setting.accept().await.takes_the_plugin().await;
    assert_eq!(setting.link(), Link::Connected);
}

#[tokio::test]
async fn the_plugin_ends_with_the_agent() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    runtime.takes_the_plugin().await;
    assert!(setting.drain.start(Duration::from_secs(10)).await, "it does not hold the drain up");
    setting.running.await.unwrap();
    assert_eq!(runtime.stream.read(&mut [0; 10]).await.unwrap(), 0);
}
