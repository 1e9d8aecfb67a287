//! The messages of NRI v1alpha1 that the plugin reads and writes, kept by hand; `proto/nri.proto` explains them.
//!
//! Only the fields that the plugin uses are named. Others are skipped, as protobuf specifies, so a newer runtime can send more.

use std::collections::HashMap;

use prost::Message as _;

/// The service that the runtime calls.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that the plugin calls.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A ttrpc call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcRequest {
    /// The service of the method.
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    /// Its argument.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// Timeout of the caller; 0 = none.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// A ttrpc response.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcResponse {
    /// The error, if any.
    #[prost(message, optional, tag = "1")]
    pub status: Option<TtrpcStatus>,
    /// The result.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// An error, with gRPC's codes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcStatus {
    /// The code; 0 = no error.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Nothing.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// Registers the plugin.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterPlugin {
    /// Our name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Position among the plugins: two digits, lower ones are called first.
    #[prost(string, tag = "2")]
    pub index: String,
}

/// Describes the runtime.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Configure {
    /// Configuration for the plugin from the runtime's administrator.
    #[prost(string, tag = "1")]
    pub config: String,
    /// The runtime's name.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Its timeout for calls, in milliseconds; 0 if not given.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
    /// The version of its NRI; empty if not given.
    #[prost(string, tag = "6")]
    pub nri_version: String,
}

/// The events that the plugin subscribes to.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigureAnswer {
    /// A bit for each event: event n is bit n - 1.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// The existing pods and containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Synchronize {
    /// Every pod.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    /// Every container.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<NriContainer>,
    /// Whether more follow in another call.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// Acknowledges a list.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct SynchronizeAnswer {
    /// The `more` of the call.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// The argument of every call about a container or a pod; calls about a pod have no container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct About {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub container: Option<NriContainer>,
}

/// The older form of all calls that need no response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateChange {
    /// The event.
    #[prost(enumeration = "NriEvent", tag = "1")]
    pub event: i32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    /// The container; `None` for events of pods.
    #[prost(message, optional, tag = "3")]
    pub container: Option<NriContainer>,
}

/// An event.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum NriEvent {
    /// Something newer.
    Unknown = 0,
    /// A pod starts.
    RunPodSandbox = 1,
    StopPodSandbox = 2,
    RemovePodSandbox = 3,
    /// A container is about to be created; the response may change it.
    CreateContainer = 4,
    /// It was created.
    PostCreateContainer = 5,
    /// It is about to be started; its process exists and waits.
    StartContainer = 6,
    /// It was started.
    PostStartContainer = 7,
    /// Its resources are about to be changed.
    UpdateContainer = 8,
    /// They were changed.
    PostUpdateContainer = 9,
    /// It has ended, or is stopped.
    StopContainer = 10,
    RemoveContainer = 11,
}

impl NriEvent {
    /// Its bit in [`ConfigureAnswer::events`].
    #[must_use]
    pub const fn subscription_bit(self) -> i32 {
        match self as i32 {
            0 => 0,
            n => 1 << (n - 1),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// The id of its sandbox, which changes with each sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its uid, given by the API server.
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
    /// The handler of its runtime class; empty = the default one.
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    /// What is particular to Linux.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
    /// The process that holds its namespaces; 0 if not given.
    #[prost(uint32, tag = "9")]
    pub pid: u32,
}

/// Linux-specific properties of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandbox {
    /// Its namespaces. The network namespace is listed only if the pod has its own.
    #[prost(message, repeated, tag = "5")]
    pub namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NriContainer {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its pod's sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name in the pod.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its state.
    #[prost(enumeration = "ContainerState", tag = "4")]
    pub state: i32,
    /// Its annotations, which come from the runtime and its plugins, not from the author of the pod.
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
    /// Its environment, `NAME=value` each.
    #[prost(string, repeated, tag = "8")]
    pub env: Vec<String>,
    /// Its mounts, those of earlier plugins included.
    #[prost(message, repeated, tag = "9")]
    pub mounts: Vec<NriMount>,
    /// What is particular to Linux.
    #[prost(message, optional, tag = "11")]
    pub linux: Option<LinuxContainer>,
    /// Its process, once there is one.
    #[prost(uint32, tag = "12")]
    pub pid: u32,
    /// Its image, if the runtime sends it.
    #[prost(message, optional, tag = "22")]
    pub image: Option<NriImage>,
}

/// The state of a container.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Something newer.
    Unknown = 0,
    /// It was created.
    Created = 1,
    /// It is frozen.
    Paused = 2,
    /// It runs.
    Running = 3,
    /// It has ended.
    Stopped = 4,
}

/// Linux-specific properties of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainer {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxNamespace {
    /// `network`, `pid`, …
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its path; empty = it does not exist yet.
    #[prost(string, tag = "2")]
    pub path: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NriImage {
    /// Its name, as requested.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The response about a container that is about to be created.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainerAnswer {
    /// What to change about it.
    #[prost(message, optional, tag = "1")]
    pub adjust: Option<Adjustment>,
}

/// What to change about a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Adjustment {
    /// Annotations to add.
    #[prost(map = "string, string", tag = "2")]
    pub annotations: HashMap<String, String>,
    /// Mounts to add.
    #[prost(message, repeated, tag = "3")]
    pub mounts: Vec<NriMount>,
    /// Variables to set. A name with the prefix `-` removes a variable that an earlier plugin has set, which would
    /// otherwise be a conflict.
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NriMount {
    /// Its path in the container.
    #[prost(string, tag = "1")]
    pub destination: String,
    /// `bind`, …
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Its source.
    #[prost(string, tag = "3")]
    pub source: String,
    /// As for `mount`.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// A variable.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Maximum total size of a list, in bytes. A node with 500 pods has about a megabyte.
const LARGEST: usize = 64 << 20;

/// The list is larger than any node's.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the list of containers is larger than {LARGEST} bytes")]
pub(super) struct ListingError;

/// A list that is received in parts.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) pods: HashMap<String, PodSandbox>,
    pub(super) containers: Vec<NriContainer>,
    size: usize,
}

impl Listing {
    /// Whether no incomplete list is buffered.
    pub(super) fn is_complete(&self) -> bool {
        self.size == 0
    }

    /// Adds a part.
    pub(super) fn add(&mut self, part: Synchronize) -> Result<(), ListingError> {
        self.size = self.size.saturating_add(part.encoded_len());
        if self.size > LARGEST {
            *self = Self::default();
            return Err(ListingError);
        }
        self.pods.extend(part.pods.into_iter().map(|pod| (pod.id.clone(), pod)));
        self.containers.extend(part.containers);
        Ok(())
    }
}
