//! Rules that concern several settings, or that the kind of a setting cannot express.

use std::path::{Component, Path};

use super::AgentConfig;
use super::error::ConfigError;
use super::layers::Layers;
use super::setting::SETTINGS;
use crate::products::Product;

/// The kernel's `sun_path` has 108 bytes, the last of which is zero.
const LONGEST_SOCKET: usize = 107;
/// The descriptor socket is beside the admin socket and has `.fd` appended to its name.
const LONGEST_ADMIN_SOCKET: usize = LONGEST_SOCKET - ".fd".len();
/// Second-level directories that contain other files in most images.
const SHARED: [&str; 8] =
    ["/var/run", "/var/lib", "/var/tmp", "/var/log", "/usr/bin", "/usr/lib", "/usr/local", "/dev/shm"];

/// Checks a configuration as a whole, and adds errors to those of single values.
pub(super) fn check_values(config: &AgentConfig, layers: &Layers, errors: &mut Vec<ConfigError>) {
    // A wrong value was replaced by its default, which may look unsafe beside the others.
    let http_is_sound = !errors.iter().any(|error| error.is_in("http"));
    let mut wrong = |key, reason: &str| errors.push(ConfigError::value(layers, key, reason));
    if http_is_sound {
        check_http(config, &mut wrong);
    }
    check_products(config, layers, Product::is_built_in, &mut wrong);
    if config.admin.socket.as_os_str().len() > LONGEST_ADMIN_SOCKET {
        wrong("admin.socket", &format!("is longer than the {LONGEST_ADMIN_SOCKET} bytes that it may have"));
    }
    // The ends of windows are readable, and a timestamp, which is in whole seconds, falls into one window.
    if config.aggregation.window.subsec_nanos() != 0 {
        wrong("windows.length", "is not a whole number of seconds");
    }
    if config.unix.path.as_os_str().len() > LONGEST_SOCKET {
        wrong(
            "unix.path",
            &format!("is longer than the {LONGEST_SOCKET} bytes that a socket's path may have"),
        );
    } else if hides_other_files(&config.unix.path) {
        wrong(
            "unix.path",
            "is in a directory that containers need for other things; set one like /var/run/datadog/dsd.socket",
        );
    }
}

/// Refuses values that would be ignored because what they configure is not part of this program.
pub(super) fn check_products(
    config: &AgentConfig,
    layers: &Layers,
    is_built_in: impl Fn(Product) -> bool,
    wrong: &mut impl FnMut(&'static str, &str),
) {
    for setting in SETTINGS {
        let Some(product) = setting.find_product().filter(|product| !is_built_in(*product)) else { continue };
        if config.values.is_in_use(setting, layers) {
            wrong(
                setting.key,
                &format!(
                    "cannot be used: this program was built without {} (cargo feature {}); remove the setting, or install \
                     a complete build",
                    product.describe_product(),
                    product.feature_name()
                ),
            );
        }
    }
}

fn check_http(config: &AgentConfig, wrong: &mut impl FnMut(&'static str, &str)) {
    let files = |key| config.values.optional_path(key).is_some();
    let (certificate, key) = (files("http.tls_certificate"), files("http.tls_key"));
    if certificate && !key {
        wrong("http.tls_certificate", "needs http.tls_key beside it");
    }
    if key && !certificate {
        wrong("http.tls_key", "needs http.tls_certificate beside it");
    }
    if let Some(lacks) = config.http.missing_protection() {
        wrong(
            "http.listen",
            &format!(
                "is off loopback, where everyone who reaches it could read everything; set {lacks}, or \
                 http.insecure = true (--http-insecure) to want that"
            ),
        );
    }
}

/// Whether mounting the directory of this socket into a container would hide other files of the container.
fn hides_other_files(socket: &Path) -> bool {
    let parent = socket.parent().unwrap_or(Path::new("/"));
    let climbs = socket.components().any(|part| !matches!(part, Component::RootDir | Component::Normal(_)));
    climbs || parent.components().count() < 3 || SHARED.iter().any(|at| parent == Path::new(at))
}
