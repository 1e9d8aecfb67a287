//! Keys of annotations and labels that set options of a container: a pod's annotations as the NRI plugin reads them, labels of a
//! reserve call, and a bundle's annotations as the OCI wrapper reads them.

/// What all of them start with.
pub const PREFIX: &str = "tallyport.";
/// Whether the container gets a socket.
pub const ENABLED: &str = "tallyport.enabled";
/// Whether the container gets a Unix socket.
pub const UNIX_SOCKET: &str = "tallyport.unix-socket";
/// The task of a container whose reserve call names none; on a pod, an alias of its task within its namespace.
pub const TASK_ID: &str = "tallyport.task-id";
/// The meaning of gauge values with a sign: `auto`, `delta` or `absolute`.
pub const GAUGE_SIGN: &str = "tallyport.gauge-sign";
/// The unit that timers are sent in: `ms` or `s`.
pub const TIMER_UNIT: &str = "tallyport.timer-unit";
