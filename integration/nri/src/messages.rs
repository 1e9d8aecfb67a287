//! The messages of CRI (`runtime.v1`) that the tests use, with the protocol's field numbers.

use std::collections::HashMap;

/// The network of the node.
pub const NODE: i32 = 2;

macro_rules! messages {
    ($($name:ident { $($(#[$field:meta])* $key:ident: $type:ty,)* })*) => {
        $(#[derive(Clone, PartialEq, prost::Message)]
        pub struct $name { $($(#[$field])* pub $key: $type,)* })*
    };
}

messages! {
    PodMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    PodConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodMetadata>,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(map = "string, string", tag = "6")] labels: HashMap<String, String>,
        #[prost(map = "string, string", tag = "7")] annotations: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPod>,
    }
    LinuxPod {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security: Option<PodSecurity>,
    }
    PodSecurity {
        #[prost(message, optional, tag = "1")] namespaces: Option<Namespaces>,
    }
    Namespaces {
        #[prost(int32, tag = "1")] network: i32,
    }
    RunPod {
        #[prost(message, optional, tag = "1")] config: Option<PodConfig>,
    }
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    Image {
        #[prost(string, tag = "1")] image: String,
    }
    Variable {
        #[prost(string, tag = "1")] key: String,
        #[prost(string, tag = "2")] value: String,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<Image>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(message, repeated, tag = "6")] envs: Vec<Variable>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainer>,
    }
    LinuxContainer {
        #[prost(message, optional, tag = "2")] security: Option<ContainerSecurity>,
    }
    ContainerSecurity {
        #[prost(message, optional, tag = "3")] namespaces: Option<Namespaces>,
    }
    CreateContainer {
        #[prost(string, tag = "1")] pod: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] pod_config: Option<PodConfig>,
    }
    Id {
        #[prost(string, tag = "1")] id: String,
    }
    Stop {
        #[prost(string, tag = "1")] id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    Exec {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] command: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    Executed {
        #[prost(bytes = "vec", tag = "1")] out: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] err: Vec<u8>,
        #[prost(int32, tag = "3")] code: i32,
    }
    GetStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    Status {
        #[prost(map = "string, string", tag = "2")] info: HashMap<String, String>,
    }
    Empty {}
}
