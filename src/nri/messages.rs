//! The messages of NRI v1alpha1 that the plugin reads and writes, kept by hand; `proto/nri.proto` explains them.
//!
//! Only the fields that the plugin uses are named. Others are skipped, as protobuf specifies, so a newer runtime can send more.

use std::collections::HashMap;

use prost::Message as _;

/// The service that the runtime calls.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that we call.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A ttrpc call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcRequest {
    /// Whose method.
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    /// Its argument.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits; 0 = as long as it takes.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// A ttrpc answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcResponse {
    /// What went wrong, where something did.
    #[prost(message, optional, tag = "1")]
    pub status: Option<TtrpcStatus>,
    /// The result.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// What went wrong, with gRPC's codes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TtrpcStatus {
    /// The code; 0 = nothing.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Nothing.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// We say who we are.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterPlugin {
    /// Our name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Our place among the plugins: two digits, lower ones are asked first.
    #[prost(string, tag = "2")]
    pub index: String,
}

/// The runtime says who it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Configure {
    /// What the runtime's administrator has written for us.
    #[prost(string, tag = "1")]
    pub config: String,
    /// The runtime's name.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// How long it waits for our answers, in milliseconds; 0 where it does not say.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
    /// The version of its NRI; empty where it does not say.
    #[prost(string, tag = "6")]
    pub nri_version: String,
}

/// Which events we want.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigureAnswer {
    /// A bit for each: event n is bit n - 1.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// What is there already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Synchronize {
    /// Every pod.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    /// Every container.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<NriContainer>,
    /// Whether more of them come in another call.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// We have seen it.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub struct SynchronizeAnswer {
    /// The `more` of the call, which says that we wait for the rest.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// The argument of every call about a container or a pod; of a pod alone, there is no container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct About {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub container: Option<NriContainer>,
}

/// The older form of every call that needs no answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateChange {
    /// What has happened.
    #[prost(enumeration = "NriEvent", tag = "1")]
    pub event: i32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    /// The container; none where the event is the pod's.
    #[prost(message, optional, tag = "3")]
    pub container: Option<NriContainer>,
}

/// What can happen.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum NriEvent {
    /// Something newer.
    Unknown = 0,
    /// A pod starts.
    RunPodSandbox = 1,
    StopPodSandbox = 2,
    RemovePodSandbox = 3,
    /// A container is about to be created; the answer may change it.
    CreateContainer = 4,
    /// It was created.
    PostCreateContainer = 5,
    /// It is about to be started; its process is there and waits.
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
    /// Its sandbox's id, new with each sandbox.
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
    /// The handler that its runtime class names; empty = the usual one.
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    /// What is particular to Linux.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
    /// The process that holds its namespaces; 0 where the runtime does not say.
    #[prost(uint32, tag = "9")]
    pub pid: u32,
}

/// What is particular to Linux about a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandbox {
    /// Its namespaces. The network's is here only where the pod has one of its own.
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
    /// Where it is in its life.
    #[prost(enumeration = "ContainerState", tag = "4")]
    pub state: i32,
    /// Its annotations, which come from the runtime and its plugins, not from who wrote the pod.
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
    /// Its image, where the runtime says.
    #[prost(message, optional, tag = "22")]
    pub image: Option<NriImage>,
}

/// Where a container is in its life.
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

/// What is particular to Linux about a container.
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
    /// Where it is; empty = not born yet.
    #[prost(string, tag = "2")]
    pub path: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NriImage {
    /// As it was asked for.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Our answer about a container that is about to be created.
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
    /// Variables to set. A name with `-` in front takes back what an earlier plugin has set, which would be a
    /// conflict otherwise.
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NriMount {
    /// Where it is in the container.
    #[prost(string, tag = "1")]
    pub destination: String,
    /// `bind`, …
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Where it comes from.
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

/// Most bytes of a list, all its parts together. A node of 500 pods has about a megabyte.
const LARGEST: usize = 64 << 20;

/// The list is longer than any node's.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the list of containers is larger than {LARGEST} bytes")]
pub(super) struct ListingError;

/// A list that comes in parts.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) pods: HashMap<String, PodSandbox>,
    pub(super) containers: Vec<NriContainer>,
    size: usize,
}

impl Listing {
    /// Whether no part of a list is waiting for the rest of it.
    pub(super) fn is_complete(&self) -> bool {
        self.size == 0
    }

    /// Takes a part.
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
