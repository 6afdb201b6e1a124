//! What a driver can ask of a filesystem, whatever way leads there.

/// `STATUS_*` of [MS-ERREF] 2.3.1 that are expected.
pub mod status {
    #![expect(missing_docs, reason = "the names are those of the specification")]
    pub const SUCCESS: u32 = 0;
    pub const INVALID_HANDLE: u32 = 0xc000_0008;
    pub const INVALID_PARAMETER: u32 = 0xc000_000d;
    pub const INVALID_DEVICE_REQUEST: u32 = 0xc000_0010;
    pub const END_OF_FILE: u32 = 0xc000_0011;
    pub const ACCESS_DENIED: u32 = 0xc000_0022;
    pub const OBJECT_NAME_INVALID: u32 = 0xc000_0033;
    pub const OBJECT_NAME_NOT_FOUND: u32 = 0xc000_0034;
    pub const OBJECT_NAME_COLLISION: u32 = 0xc000_0035;
    pub const OBJECT_PATH_NOT_FOUND: u32 = 0xc000_003a;
    pub const MEDIA_WRITE_PROTECTED: u32 = 0xc000_00a2;
    pub const FILE_IS_A_DIRECTORY: u32 = 0xc000_00ba;
    pub const NOT_A_DIRECTORY: u32 = 0xc000_0103;
    pub const CANNOT_DELETE: u32 = 0xc000_0121;
}

/// `FILE_GENERIC_READ`.
pub const READ: u32 = 0x0012_0089;
/// `FILE_READ_ATTRIBUTES | SYNCHRONIZE`.
pub const LOOK: u32 = 0x0010_0080;
/// `FILE_LIST_DIRECTORY | SYNCHRONIZE`.
pub const LIST: u32 = 0x0010_0001;
/// `FILE_OPEN`.
pub const OPEN: u32 = 1;
/// `FILE_DIRECTORY_FILE`.
pub const DIRECTORY_FILE: u32 = 1;
/// `FILE_NON_DIRECTORY_FILE`.
pub const NON_DIRECTORY_FILE: u32 = 0x40;
/// `FILE_ATTRIBUTE_DIRECTORY`.
pub const DIRECTORY: u32 = 0x10;
/// `FILE_ATTRIBUTE_REPARSE_POINT`.
pub const REPARSE_POINT: u32 = 0x400;

/// An open file, as Dokan remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// What the filesystem wrote.
    pub context: u64,
    /// It said that it is a folder.
    pub is_folder: bool,
    /// It said that it was there already.
    pub existed: bool,
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Bytes.
    pub len: u64,
    /// Creation, access, change.
    pub times: [u64; 3],
    /// The file's number.
    pub index: u64,
    /// Hard links.
    pub links: u32,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u16>,
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Bytes.
    pub len: u64,
    /// Creation, access, change.
    pub times: [u64; 3],
}

/// A call that would change something.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// `WriteFile`.
    Write,
    /// `SetFileAttributes`, to these.
    Attributes(u32),
    /// `SetFileTime`: creation, access, change.
    Times([i64; 3]),
    /// `DeleteFile`, `DeleteDirectory`.
    Delete,
    /// `MoveFile`.
    Move,
    /// `SetEndOfFile`.
    End,
    /// `SetAllocationSize`.
    Allocation,
    /// `SetFileSecurity`.
    Security,
}

/// All of them.
pub const CHANGES: [Change; 8] = [
    Change::Write,
    Change::Attributes(1),
    Change::Times([0x1d0_0000_0000_0000; 3]),
    Change::Delete,
    Change::Move,
    Change::End,
    Change::Allocation,
    Change::Security,
];

/// The volume: label, serial number, longest name, flags, filesystem.
pub type Volume = (String, u32, u32, u32, String);

/// An answer: what was asked for, or a status.
pub type Answer<T> = Result<T, u32>;

/// A filesystem as its driver sees it. Any number of threads may call.
pub trait Calls: Sync {
    /// `ZwCreateFile`.
    fn create(&self, path: &[u16], access: u32, disposition: u32, options: u32) -> Answer<Open>;
    /// `Cleanup`.
    fn cleanup(&self, open: &Open);
    /// `CloseFile`.
    fn close(&self, open: &Open);
    /// `ReadFile`.
    fn read(&self, open: &Open, len: usize, offset: i64) -> Answer<Vec<u8>>;
    /// `FlushFileBuffers`.
    fn flush(&self, open: &Open) -> Answer<()>;
    /// `GetFileInformation`.
    fn information(&self, open: &Open) -> Answer<Known>;
    /// `FindFilesWithPattern`, or `FindFiles` where there is no pattern.
    fn list(&self, open: &Open, pattern: Option<&[u16]>) -> Answer<Vec<Entry>>;
    /// `FindStreams`.
    fn streams(&self, open: &Open) -> Answer<Vec<(Vec<u16>, u64)>>;
    /// `GetFileSecurity`.
    fn security(&self, open: &Open, wanted: u32) -> Answer<Vec<u8>>;
    /// `WriteFile` from a byte on, or at the end of the file (`None`); by the memory manager, where `paging` is set.
    fn write(&self, open: &Open, bytes: &[u8], offset: Option<i64>, paging: bool) -> Answer<usize>;
    /// `SetEndOfFile`, or `SetAllocationSize`.
    fn set_len(&self, open: &Open, len: i64, is_allocation: bool) -> Answer<()>;
    /// What would change something.
    fn change(&self, open: &Open, change: Change) -> Answer<()>;
    /// `LockFile` for so many bytes from one on, or `UnlockFile`.
    fn lock(&self, open: &Open, offset: i64, len: i64, is_end: bool) -> Answer<()>;
    /// `GetDiskFreeSpace`: available, total, free.
    fn space(&self) -> Answer<[u64; 3]>;
    /// `GetVolumeInformation`.
    fn volume(&self) -> Answer<Volume>;

    /// Opens, uses and closes, as a program does.
    fn with<T>(&self, path: &[u16], access: u32, options: u32, work: impl FnOnce(&Open) -> Answer<T>) -> Answer<T>
    where
        Self: Sized,
    {
        let open = self.create(path, access, OPEN, options)?;
        let result = work(&open);
        self.cleanup(&open);
        self.close(&open);
        result
    }

    /// Reads a file from front to back, `piece` bytes at once.
    fn read_all(&self, open: &Open, piece: usize) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match self.read(open, piece, bytes.len() as i64) {
                Ok(part) if part.is_empty() => return Ok(bytes),
                Ok(part) => bytes.extend(part),
                Err(status::END_OF_FILE) => return Ok(bytes),
                Err(status) => return Err(status),
            }
        }
    }
}

/// The units of a text.
pub fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// The path of a name in a folder.
pub fn join(folder: &[u16], name: &[u16]) -> Vec<u16> {
    let mut path = folder.to_vec();
    if path.last() != Some(&0x5c) {
        path.push(0x5c);
    }
    path.extend_from_slice(name);
    path
}
