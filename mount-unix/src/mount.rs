//! A mount: making it, serving it, ending it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use imgfmt::readahead::Readahead;
use imgfmt::tree::Tree;

use crate::attributes::Owners;
use crate::mounts::{self, Unmounted};
use crate::translate::Translate;

/// The type of our mounts: `fuse.hikae` in the system's table.
pub(crate) const TYPE: &str = "hikae";
/// Readahead in KiB that is asked of the kernel where the administrator mounts: as much as one request can carry.
const KERNEL_READAHEAD: &str = "1024";

/// Hears what goes wrong while a mount serves, line by line. The library prints nothing.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How a mount is made.
#[derive(Clone)]
pub struct MountOptions {
    /// What the table of mounts shows as its source: the image.
    pub source: String,
    /// Other users may see it, with the permissions that the files have.
    pub allow_other: bool,
    /// Everything belongs to this user.
    pub uid: Option<u32>,
    /// Everything belongs to this group.
    pub gid: Option<u32>,
    /// Most bytes that are kept of what was read ahead.
    pub readahead_bytes: u64,
    /// Hears what goes wrong.
    pub log: Log,
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Why a mount was not made or not ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// What is mounted there has lost its process.
    #[error("{} is a dead mount: its process is gone. Take it away with: hikae umount {}", .0.display(), .0.display())]
    Dead(PathBuf),
    /// There is a mount already.
    #[error("{} is a mount of hikae already. Take it away with: hikae umount {}", .0.display(), .0.display())]
    Mounted(PathBuf),
    /// There is no mount of this program.
    #[error("{} is no mount of hikae", .0.display())]
    NotMounted(PathBuf),
    /// The place cannot be mounted on.
    #[error("cannot mount on {}", dir.display())]
    Place {
        /// The place.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody uses it.
    #[error("{} is in use: close the files and leave the folders in it (fuser -vm {} lists who), or say --lazy", .0.display(), .0.display())]
    Busy(PathBuf),
    /// The administrator must allow it first.
    #[error(
        "--allow-other is not allowed to you: the administrator can put the line user_allow_other into /etc/fuse.conf"
    )]
    AllowOther,
    /// The helper of ordinary users is missing.
    #[error("fusermount3 cannot be started, and without it only root can mount: install fuse3")]
    NoFusermount {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system has no FUSE.
    #[error("/dev/fuse is not there: this system has no FUSE, or its module is not loaded (modprobe fuse)")]
    NoFuse,
    /// Anything else that the system said.
    #[error("cannot mount on {}", dir.display())]
    Mount {
        /// The place.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The mount could not be taken away.
    #[error("cannot unmount {}: {text}", dir.display())]
    Unmount {
        /// The place.
        dir: PathBuf,
        /// What the system said.
        text: String,
    },
    /// What was written into it cannot be made durable.
    #[error(
        "what was written into {} is not all on the disk yet and would be lost: make that possible and try again, or say --lazy to take it away all the same",
        dir.display()
    )]
    NotDurable {
        /// The place.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The threads of the mount ended in another way than by its end.
    #[error("the mount on {} ended", dir.display())]
    Serve {
        /// The place.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A mount that is there; the kernel's calls wait until it is served.
#[derive(Debug)]
pub struct Mount {
    session: Session<Translate>,
    unmounter: Unmounter,
}

/// Ends a mount, from any thread.
#[derive(Clone)]
pub struct Unmounter {
    dir: PathBuf,
    log: Log,
}

impl std::fmt::Debug for Unmounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unmounter").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Unmounter {
    /// Ends the mount. One that is in use goes out of sight at once, and goes for good with the last open file.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        match mounts::detach(&self.dir, false) {
            Err(MountError::Busy(_)) => {
                (self.log)(&format!(
                    "{} is in use: it is out of sight now, and ends when the last file in it is closed",
                    self.dir.display()
                ));
                mounts::detach(&self.dir, true).map(|()| Unmounted::Detached)
            }
            result => result.map(|()| Unmounted::Gone),
        }
    }
}

impl Mount {
    /// Shows `tree` on the folder `dir`: read only but for the files that take writes, without set-user-id and devices, and for nobody but its maker unless
    /// [`MountOptions::allow_other`] is set.
    pub fn new(tree: Arc<Tree>, dir: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let dir = check_place(dir)?;
        let owners = Owners {
            uid: options.uid,
            gid: options.gid,
            mounter: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        let failed = |source| MountError::Mount { dir: dir.clone(), source };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let readahead = Readahead::start(cores, options.readahead_bytes).map_err(failed)?;
        let takes_writes = tree.takes_writes();
        let translate = Translate::new(tree, owners, Arc::clone(&options.log), readahead);
        let session = Session::new(translate, &dir, &config(options, cores, takes_writes))
            .map_err(|error| explain(error, &dir))?;
        raise_kernel_readahead(&dir);
        let unmounter = Unmounter { dir, log: Arc::clone(&options.log) };
        Ok(Self { session, unmounter })
    }

    /// What ends the mount.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Serves the mount until it is taken away.
    pub fn serve(self) -> Result<(), MountError> {
        let dir = self.unmounter.dir;
        run(self.session).map_err(|source| MountError::Serve { dir, source })
    }
}

/// Runs a session until its mount is taken away.
///
/// When a session of `fuser` ends, it unmounts whatever lies on its folder, also where its own mount is gone and another one has that place by then: it takes
/// POLLERR, by which the kernel says that the device is disconnected, for the opposite. So what it would do that with is let go of. It stays where the session ended
/// in any other way, and then takes the mount away.
fn run(session: Session<Translate>) -> std::io::Result<()> {
    let nobody = std::thread::Builder::new().spawn(|| Ok(()))?;
    let mut background = session.spawn()?;
    match std::mem::replace(&mut background.guard, nobody).join() {
        Ok(Ok(())) => {
            std::mem::forget(background);
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::Error::other("a thread of the mount panicked")),
    }
}

/// Checks the place before FUSE does, whose messages say less. Returns its absolute path.
fn check_place(dir: &Path) -> Result<PathBuf, MountError> {
    let absolute = mounts::absolute(dir);
    if mounts::is_dead(&absolute) {
        return Err(MountError::Dead(absolute));
    }
    if mounts::listed().iter().any(|mount| mount.dir == absolute) {
        return Err(MountError::Mounted(absolute));
    }
    let place = |source| MountError::Place { dir: absolute.clone(), source };
    if !std::fs::metadata(&absolute).map_err(place)?.is_dir() {
        return Err(place(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    Ok(absolute)
}

fn config(options: &MountOptions, cores: usize, takes_writes: bool) -> Config {
    // The name lies in a list with commas, and an older fusermount does not unescape it.
    let source = options.source.replace([',', '\\', '\n'], "?");
    let mut config = Config::default();
    config.mount_options = vec![
        if takes_writes { MountOption::RW } else { MountOption::RO },
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::FSName(source),
        // As an option of the kernel, which fusermount understands as well: the crate's own way is left out for root.
        MountOption::CUSTOM(format!("subtype={TYPE}")),
    ];
    if options.allow_other {
        // Without the kernel's own check the first user's permission would count for all.
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    // More than cores, so that one that waits for a slow disk does not stop the others.
    config.n_threads = Some(cores.saturating_add(2).max(4));
    config
}

fn explain(error: std::io::Error, dir: &Path) -> MountError {
    let text = error.to_string();
    if text.contains("user_allow_other") {
        return MountError::AllowOther;
    }
    if !Path::new("/dev/fuse").exists() {
        return MountError::NoFuse;
    }
    if error.kind() == std::io::ErrorKind::NotFound {
        return MountError::NoFusermount { source: error };
    }
    MountError::Mount { dir: dir.to_owned(), source: error }
}

/// Lets the kernel ask for more at once than its 128 KiB. Only the administrator may; without it the mount is slower and right.
#[cfg(target_os = "linux")]
fn raise_kernel_readahead(dir: &Path) {
    // The table has the number of the device; a look at the folder itself would have to be answered by us.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_dir = |line: &&str| line.split(' ').nth(4).is_some_and(|name| Path::new(name) == dir);
    let number = table.lines().rfind(of_dir).and_then(|line| line.split(' ').nth(2));
    if let Some(number) = number {
        let _ = std::fs::write(format!("/sys/class/bdi/{number}/read_ahead_kb"), KERNEL_READAHEAD);
    }
}

#[cfg(not(target_os = "linux"))]
fn raise_kernel_readahead(_: &Path) {}
