//! Opening a file with everything below it: bases of bases, each through the gate, without loops.

use std::sync::Arc;

use crate::disk::{Disk, ExtentKind};
use crate::error::{Error, Result};
use crate::format::cache::Caches;
use crate::format::file::ImageFile;
use crate::format::layer::{Below, Layer, Stack};
use crate::format::policy::{self, MAX_DEPTH, Policy};
use crate::format::{About, DRIVERS, Format, probe};
use crate::platform::FileId;

/// What a driver makes of a file.
pub(crate) struct Opened {
    /// Where its bytes lie.
    pub(crate) layer: Box<dyn Layer>,
    /// What it is; `base` is filled in by the caller.
    pub(crate) about: About,
    /// What it lies over.
    pub(crate) base: Option<BaseWish>,
    /// Logical sector size, where the format tells.
    pub(crate) sector_size: Option<u32>,
}

/// How an image asks for its base.
#[derive(Clone, Debug)]
pub(crate) struct BaseWish {
    /// What the format calls it: "backing file", "parent".
    pub(crate) what: &'static str,
    /// By name: the first that exists and is allowed. Without names, by identity among the files with the format's extension.
    pub(crate) names: Vec<Vec<u8>>,
    /// Its format, where it is told.
    pub(crate) format: Option<Format>,
    /// What its [`About::identity`] must be, where it is told; what is behind a `/` there only where it is told too.
    pub(crate) identity: Option<String>,
}

/// What an image lies over.
pub(crate) enum Base {
    /// It is complete.
    Nothing,
    /// Its base was not opened.
    LeftOut,
    /// This disk.
    Image(Arc<dyn Disk>, Box<About>),
}

/// Opens one file of a chain: the policy, the caches, and the images above.
pub(crate) struct Opener<'a> {
    policy: &'a Policy,
    snapshot: Option<&'a str>,
    caches: &'a Arc<Caches>,
    above: Vec<FileId>,
}

impl<'a> Opener<'a> {
    /// Opens the top of a chain.
    pub(crate) fn new(policy: &'a Policy, snapshot: Option<&'a str>, caches: &'a Arc<Caches>) -> Self {
        Self { policy, snapshot, caches, above: Vec::new() }
    }

    /// The internal snapshot that is wanted, by identifier or name.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        self.snapshot
    }

    /// Parses a file of this format.
    pub(crate) fn open(&self, file: &ImageFile, format: Format) -> Result<Opened> {
        let driver = DRIVERS.iter().find(|driver| driver.format == format);
        let driver = driver.ok_or_else(|| file.unsupported(format_args!("the format {format}")))?;
        let opened = (driver.open)(self, file)?;
        if let Some(snapshot) = self.snapshot
            && format != Format::Qcow2
        {
            return Err(Error::NotFound(format!("{} has no snapshot {snapshot:?}: {format} has none", file.name())));
        }
        Ok(opened)
    }

    /// Opens a file that `from` names, as the policy allows.
    pub(crate) fn open_named(&self, from: &ImageFile, what: &'static str, name: &[u8]) -> Result<ImageFile> {
        policy::open_named(self.policy, from, what, name, self.caches)
    }

    /// Opens what `child` lies over, and everything below that.
    pub(crate) fn open_base(&self, child: &ImageFile, wish: &BaseWish) -> Result<Base> {
        let mut above = self.above.clone();
        above.extend(child.id());
        let refused = |why: &str| {
            let (what, policy) = (wish.what, self.policy);
            Error::Refused(format!(
                "{} has a {what} that the policy refuses: {why} (the policy is: {policy})",
                child.name()
            ))
        };
        if above.len() >= MAX_DEPTH {
            return Err(refused(&format!("the chain is longer than {MAX_DEPTH} images")));
        }
        let (file, format) = self.find(child, wish)?;
        if file.id().is_some_and(|id| above.contains(&id)) {
            return Err(refused("it is the image itself, or one that lies over it"));
        }
        let below = Opener { policy: self.policy, snapshot: None, caches: self.caches, above };
        let opened = below.open(&file, format)?;
        if let Some(identity) = &wish.identity
            && !is_of(&opened.about.identity, identity)
        {
            return Err(wrong_base(child, wish, &file));
        }
        let base = match &opened.base {
            None => Base::Nothing,
            Some(wish) => below.open_base(&file, wish)?,
        };
        let (disk, base) = stack(opened.layer, base, opened.sector_size.unwrap_or(512), self.caches);
        Ok(Base::Image(Arc::new(disk), Box::new(About { base, ..opened.about })))
    }

    /// Finds the file and its format.
    fn find(&self, child: &ImageFile, wish: &BaseWish) -> Result<(ImageFile, Format)> {
        if wish.names.is_empty() {
            return self.search(child, wish);
        }
        let mut first_error = None;
        for name in &wish.names {
            match self.open_named(child, wish.what, name) {
                Ok(file) => {
                    let format = wish.format.map_or_else(|| probe(&file), Ok)?;
                    return Ok((file, format));
                }
                // A refusal says more than a missing file.
                Err(error @ Error::NotFound(_)) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => match first_error {
                    None | Some(Error::NotFound(_)) => first_error = Some(error),
                    Some(_) => {}
                },
            }
        }
        Err(first_error.expect("there is at least one name"))
    }

    /// Finds the file by its identity.
    fn search(&self, child: &ImageFile, wish: &BaseWish) -> Result<(ImageFile, Format)> {
        let identity = wish.identity.as_deref().unwrap_or_default();
        let missing = || {
            let (what, policy) = (wish.what, self.policy);
            Error::NotFound(format!(
                "{} needs the {what} {identity}, and no file that may be opened is it (the policy is: {policy})",
                child.name()
            ))
        };
        let format = wish.format.ok_or_else(missing)?;
        let is_it = |file: ImageFile| {
            let itself = file.id() == child.id();
            let found = !itself && self.open(&file, format).is_ok_and(|opened| is_of(&opened.about.identity, identity));
            found.then_some(file)
        };
        let found = policy::search(self.policy, child, wish.what, format.name(), self.caches, is_it)?;
        found.map(|file| (file, format)).ok_or_else(missing)
    }
}

/// Says whether an image's identity is the wanted one, or a state of it where the state does not matter.
fn is_of(identity: &str, wanted: &str) -> bool {
    identity.strip_prefix(wanted).is_some_and(|state| state.is_empty() || state.starts_with('/'))
}

fn wrong_base(child: &ImageFile, wish: &BaseWish, file: &ImageFile) -> Error {
    let wanted = wish.identity.as_deref().unwrap_or_default();
    Error::Refused(format!(
        "{} was made over a {} that was {wanted} then: {} is not it, or was changed since, and would give wrong data",
        child.name(),
        wish.what,
        file.name()
    ))
}

/// Makes the disk of a layer and what lies below it.
pub(crate) fn stack(
    layer: Box<dyn Layer>,
    base: Base,
    sector_size: u32,
    caches: &Arc<Caches>,
) -> (Stack, Option<Box<About>>) {
    let (below, about) = match base {
        // The guest reads zeros there and may rely on them, as in the hole of a file.
        Base::Nothing => (Below::Nothing(ExtentKind::Zero), None),
        Base::LeftOut => (Below::Nothing(ExtentKind::Absent), None),
        Base::Image(disk, about) => (Below::Disk(disk), Some(about)),
    };
    (Stack::new(layer, below, sector_size, Arc::clone(caches)), about)
}
