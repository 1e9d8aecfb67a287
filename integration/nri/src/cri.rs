//! The kubelet's side of CRI: gRPC over the runtime's Unix socket, one call at a time.

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::messages::{
    ContainerConfig, ContainerMetadata, ContainerSecurity, CreateContainer, Empty, Exec, Executed, GetStatus,
    Id, Image, LinuxContainer, LinuxPod, NODE, Namespaces, PodConfig, PodMetadata, PodSecurity, RunPod,
    Status, Stop, Variable,
};
use crate::until;

/// A connection to the runtime.
pub struct Cri {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    /// The command of containers.
    pub command: String,
}

/// The description of a test's pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub name: &'static str,
    pub uid: &'static str,
    pub namespace: &'static str,
    pub own_network: bool,
    pub annotations: &'static [(&'static str, &'static str)],
    pub labels: &'static [(&'static str, &'static str)],
}

impl Pod {
    fn config(&self) -> PodConfig {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        PodConfig {
            metadata: Some(PodMetadata {
                name: self.name.to_owned(),
                uid: self.uid.to_owned(),
                namespace: self.namespace.to_owned(),
            }),
            log_directory: String::new(),
            labels: map(self.labels),
            annotations: map(self.annotations),
            linux: Some(LinuxPod {
                cgroup_parent: format!("/tallyport-e2e/{}", self.uid),
                security: Some(PodSecurity { namespaces: Some(self.namespaces()) }),
            }),
        }
    }

    fn namespaces(&self) -> Namespaces {
        Namespaces { network: if self.own_network { 0 } else { NODE } }
    }
}

impl Cri {
    pub fn connect(socket: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.unwrap();
            let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender, command: "/bin/app".to_owned() }
    }

    fn call<A: Message + Default>(&self, method: &str, message: &impl Message) -> Result<A, String> {
        let payload = message.encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(payload.len().try_into().unwrap());
        body.put_slice(&payload);
        let request = hyper::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .unwrap();
        let mut sender = self.sender.clone();
        self.runtime.block_on(async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let collected = body.collect().await.map_err(|error| error.to_string())?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let of = |name: &str| {
                let value = trailers.get(name).or_else(|| head.headers.get(name));
                value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
            };
            if of("grpc-status") != "0" {
                return Err(format!("{method}: {} {}", of("grpc-status"), of("grpc-message")));
            }
            let mut bytes = collected.to_bytes();
            bytes.advance(5);
            A::decode(bytes).map_err(|error| error.to_string())
        })
    }

    pub fn run_pod(&self, pod: &Pod) -> String {
        self.call::<Id>("RunPodSandbox", &RunPod { config: Some(pod.config()) }).unwrap().id
    }

    /// Creates a container.
    ///
    /// # Errors
    /// The runtime's message, if it refuses.
    pub fn create(
        &self,
        sandbox: &str,
        pod: &Pod,
        name: &str,
        env: &[(&str, &str)],
    ) -> Result<String, String> {
        let variable = |(key, value): &(&str, &str)| Variable { key: (*key).into(), value: (*value).into() };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(Image { image: "localhost/app:1".to_owned() }),
            command: vec![self.command.clone()],
            envs: env.iter().map(variable).collect(),
            log_path: String::new(),
            linux: Some(LinuxContainer {
                security: Some(ContainerSecurity { namespaces: Some(pod.namespaces()) }),
            }),
        };
        let call =
            CreateContainer { pod: sandbox.to_owned(), config: Some(config), pod_config: Some(pod.config()) };
        Ok(self.call::<Id>("CreateContainer", &call)?.id)
    }

    /// Creates and starts a container.
    pub fn start(&self, sandbox: &str, pod: &Pod, name: &str, env: &[(&str, &str)]) -> String {
        let id = self.create(sandbox, pod, name, env).unwrap();
        self.start_created(&id);
        id
    }

    pub fn start_created(&self, id: &str) {
        self.try_start(id).unwrap();
    }

    /// Starts a container that was created.
    ///
    /// # Errors
    /// The runtime's message, if it refuses.
    pub fn try_start(&self, id: &str) -> Result<(), String> {
        self.call::<Empty>("StartContainer", &Id { id: id.to_owned() }).map(drop)
    }

    pub fn stop(&self, id: &str) {
        self.call::<Empty>("StopContainer", &Stop { id: id.to_owned(), timeout: 0 }).unwrap();
    }

    pub fn remove(&self, id: &str) {
        self.call::<Empty>("RemoveContainer", &Id { id: id.to_owned() }).unwrap();
    }

    pub fn remove_pod(&self, id: &str) {
        self.call::<Empty>("StopPodSandbox", &Id { id: id.to_owned() }).unwrap();
        self.call::<Empty>("RemovePodSandbox", &Id { id: id.to_owned() }).unwrap();
    }

    /// The environment of a process that `exec` starts.
    pub fn exec_env(&self, id: &str) -> Vec<String> {
        let call = Exec { id: id.to_owned(), command: vec!["/bin/env".to_owned()], timeout: 10 };
        let executed: Executed = self.call("ExecSync", &call).unwrap();
        assert_eq!(executed.code, 0, "{}", String::from_utf8_lossy(&executed.err));
        String::from_utf8(executed.out).unwrap().lines().map(str::to_owned).collect()
    }

    /// The container's process.
    pub fn pid(&self, id: &str) -> u32 {
        let status: Status =
            self.call("ContainerStatus", &GetStatus { id: id.to_owned(), verbose: true }).unwrap();
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        info["pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// The environment of the container's own process.
    pub fn process_env(&self, id: &str) -> Vec<String> {
        let pid = self.pid(id);
        // The runtime answers before its own process has become the container's program, whose environment is read.
        until("the container's program runs", || {
            !std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().starts_with("runc")
        });
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }
}
