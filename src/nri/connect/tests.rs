use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::*;
use crate::nri::messages::{
    Configure, ConfigureAnswer, CreateContainerAnswer, Empty, Synchronize, SynchronizeAnswer,
};
use crate::nri::plugin::tests::{Node, about, container, pod};
use crate::shutdown::{DrainTrigger, drain};

/// A plugin that connects to a socket of ours, at which we are the runtime.
struct Setting {
    listener: UnixListener,
    node: (crate::containers::Containers, std::sync::Arc<crate::stats::Stats>),
    drain: DrainTrigger,
    running: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nri.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (trigger, hears) = drain();
        let Node { plugin, containers, stats, .. } = Node::new(10);
        let running = tokio::spawn(run(Endpoint { socket, index: 7 }, plugin, hears));
        Self { listener, node: (containers, stats), drain: trigger, running, _directory: directory }
    }

    async fn accept(&self) -> Runtime {
        let (stream, _) = self.listener.accept().await.unwrap();
        Runtime {
            stream,
            demux: Demux::default(),
            plugin: Assembler::default(),
            runtime: Assembler::default(),
            next: 1,
        }
    }
}

/// The runtime's side.
struct Runtime {
    stream: UnixStream,
    demux: Demux,
    /// Answers of the plugin, and its calls.
    plugin: Assembler,
    runtime: Assembler,
    next: u32,
}

impl Runtime {
    async fn frame(&mut self, connection: Connection) -> Frame {
        loop {
            let assembler = match connection {
                Connection::Plugin => &mut self.plugin,
                Connection::Runtime => &mut self.runtime,
            };
            if let Some(frame) = assembler.next_frame().unwrap() {
                return frame;
            }
            // Few at a time, so that everything is cut.
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
        let request = Request::decode(frame.data).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), (RUNTIME_SERVICE, "RegisterPlugin"));
        (frame.stream, RegisterPlugin::decode(request.payload.as_slice()).unwrap())
    }

    async fn answer(&mut self, stream: u32, answer: Result<Vec<u8>, Status>) {
        let frames = mux::frames(Connection::Runtime, &ttrpc::answer(stream, answer));
        self.stream.write_all(&frames).await.unwrap();
    }

    async fn call<A: prost::Message + Default>(&mut self, method: &str, message: &impl prost::Message) -> A {
        let call = ttrpc::call(self.next, PLUGIN_SERVICE, method, message);
        self.stream.write_all(&mux::frames(Connection::Plugin, &call)).await.unwrap();
        let frame = self.frame(Connection::Plugin).await;
        assert_eq!((frame.stream, frame.kind), (self.next, Kind::Response));
        self.next += 2;
        let response = Response::decode(frame.data).unwrap();
        assert_eq!(response.status, None, "{method}");
        A::decode(response.payload.as_slice()).unwrap()
    }

    async fn takes_the_plugin(&mut self) {
        let (stream, _) = self.registered().await;
        // Before the answer to its registration: runtimes do that.
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
async fn a_connection_that_is_cut_is_made_again_and_hurts_nobody() {
    let setting = Setting::new();
    let mut runtime = setting.accept().await;
    runtime.takes_the_plugin().await;
    let _served: CreateContainerAnswer = runtime.call("CreateContainer", &about(&container("c1"))).await;
    let address = setting.node.0.directory().all()[0].address;
    // In the middle of a message.
    runtime.stream.write_all(&[0, 0, 0, 1, 0, 0]).await.unwrap();
    drop(runtime);
    let mut runtime = setting.accept().await;
    assert!(!setting.node.1.nri.is_connected());
    let (_, plugin) = runtime.registered().await;
    assert_eq!(plugin.name, "tallyport");
    let info = &setting.node.0.directory().all()[0];
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
    runtime.answer(stream, Err(Status { code: 3, message: "no".to_owned() })).await;
    setting.accept().await.takes_the_plugin().await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_says_nothing_is_not_waited_for() {
    let setting = Setting::new();
    let mut silent = setting.accept().await;
    silent.registered().await;
    let before = Instant::now();
    let _again = setting.accept().await;
    assert!(before.elapsed() >= REGISTRATION, "{:?}", before.elapsed());
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
