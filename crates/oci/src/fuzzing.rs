//! Entry points for fuzz targets: the edits of bundles, without a runtime and an agent.

use std::collections::BTreeMap;

use super::edit::{self, Gift, Hook, Mount};

/// Edits a bundle's configuration as `create` does, with a pair of variables, an alias and, if given, the directory of
/// a Unix socket.
///
/// # Errors
/// When the text is not a valid configuration.
pub fn edit_config(config: &str, directory: Option<&str>) -> serde_json::Result<String> {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let variables = pairs(&[
        ("STATSD_UDP_HOST", "127.0.0.1"),
        ("STATSD_UDP_PORT", "18125"),
        ("STATSD_HOST", "127.0.0.1"),
    ]);
    let mount = directory.map(|destination| Mount {
        source: "/run/tallyport/sockets/c".to_owned(),
        destination: destination.to_owned(),
        variables: pairs(&[("DD_DOGSTATSD_URL", "unix:///var/run/datadog/dsd.socket")]),
    });
    let gift = Gift { variables, mount };
    let hooks = |remembered: &edit::HookRecord| {
        let mut arguments = vec!["--aliases".to_owned(), remembered.aliases.join(",")];
        arguments.extend(remembered.mount.iter().flat_map(|mount| ["--mount".to_owned(), mount.clone()]));
        vec![
            ("createRuntime", Hook::new("/usr/bin/tallyport-oci", "createRuntime", &arguments, 2)),
            ("poststop", Hook::new("/usr/bin/tallyport-oci", "poststop", &[], 2)),
        ]
    };
    edit::edit_config(config, &gift, &hooks).map(|edited| edited.text)
}

/// Edits the document of a process that joins a container of this configuration. `None` if it stays unchanged.
///
/// # Errors
/// When one of the texts is not a valid document.
pub fn edit_joining_process(process: &str, config: &str) -> serde_json::Result<Option<String>> {
    edit::edit_process(process, config)
}
