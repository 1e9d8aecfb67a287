//! A private containerd in a directory of its own, with the image that the tests use.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cri::Cri;
use crate::{given, until};

pub struct Containerd {
    child: Child,
    directory: tempfile::TempDir,
    /// Pods to remove at the end; otherwise the runtime would leave processes and mounts behind.
    pods: Vec<String>,
}

impl Containerd {
    pub fn start() -> Self {
        Self::with(|_| ())
    }

    /// Starts a containerd with an edited configuration file.
    pub fn with(change: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config(directory.path())).unwrap();
        change(&file);
        std::fs::create_dir(directory.path().join("cni")).unwrap();
        std::fs::write(directory.path().join("cni/10-ptp.conflist"), NETWORK).unwrap();
        let child = spawn(directory.path());
        let containerd = Self { child, directory, pods: Vec::new() };
        containerd.answers();
        let imported = Command::new(binary("ctr"))
            .arg("--address")
            .arg(containerd.socket())
            .args(["--namespace", "k8s.io", "images", "import", "--local", "--snapshotter", "native"])
            .arg(given("TALLYPORT_E2E_IMAGE"))
            .output()
            .unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        containerd
    }

    fn answers(&self) {
        until("containerd answers", || {
            let version =
                Command::new(binary("ctr")).arg("--address").arg(self.socket()).arg("version").output();
            version.unwrap().status.success()
        });
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    pub fn nri_socket(&self) -> PathBuf {
        self.directory.path().join("nri.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn cri(&self) -> Cri {
        Cri::connect(&self.socket())
    }

    /// Registers a pod for removal at the end.
    pub fn owns(&mut self, pod: &str) {
        self.pods.push(pod.to_owned());
    }

    /// Its file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// Restarts it.
    pub fn restart(&mut self) {
        self.stopped(|| ());
    }

    /// Stops it, which leaves its containers running, calls a function, and starts it again.
    pub fn stopped(&mut self, meanwhile: impl FnOnce()) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile();
        self.child = spawn(self.directory.path());
        self.answers();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("containerd's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let pods = std::mem::take(&mut self.pods);
        let cri = std::panic::catch_unwind(|| Cri::connect(&self.directory.path().join("containerd.sock")));
        if let Ok(cri) = cri {
            for pod in pods {
                let _either_way =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cri.remove_pod(&pod)));
            }
        }
        let _either_way = self.child.kill();
        let _either_way = self.child.wait();
    }
}

fn binary(name: &str) -> PathBuf {
    PathBuf::from(given("TALLYPORT_E2E_CONTAINERD")).join(name)
}

fn spawn(directory: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let path = format!("{}:{}", given("TALLYPORT_E2E_CONTAINERD"), given("PATH"));
    Command::new(binary("containerd"))
        .arg("--config")
        .arg(directory.join("config.toml"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// `lo` and one interface that connects to the host only.
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"e2e","plugins":[{"type":"ptp","ipMasq":false,
  "ipam":{"type":"host-local","subnet":"10.199.7.0/24","dataDir":"/run/tallyport-e2e-cni"}}]}"#;

fn config(directory: &Path) -> String {
    let at = directory.display();
    let runc = given("TALLYPORT_E2E_RUNC");
    // The name of one setting changed after 2.0.
    let cni = if given("TALLYPORT_E2E_CONTAINERD").contains("v2.0") {
        "bin_dir = '/usr/lib/cni'"
    } else {
        "bin_dirs = ['/usr/lib/cni']"
    };
    format!(
        "version = 3\nroot = '{at}/root'\nstate = '{at}/state'\noom_score = 0\n\
         [grpc]\naddress = '{at}/containerd.sock'\n\
         [ttrpc]\naddress = '{at}/containerd.sock.ttrpc'\n\
         [plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'localhost/pause:1'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n{cni}\nconf_dir = '{at}/cni'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = '{runc}'\n\
         [plugins.'io.containerd.nri.v1.nri']\ndisable = false\nsocket_path = '{at}/nri.sock'\n\
         plugin_path = '{at}/nri-plugins'\nplugin_config_path = '{at}/nri-conf'\n"
    )
}
