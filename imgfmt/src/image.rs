//! The hikae image: packs of frames, trees of chunks, and their generations.
//!
//! `docs/format.md` is the specification. From the bytes upwards: [`store`] says where packs lie, [`pack`] is one of them, [`frame`] an object in
//! it, [`codec`] how its payload is stored, [`node`] and [`tree`] how chunks become a disk, [`record`] and [`catalogue`] what an image
//! holds, [`reader`] opens it, [`generation`] shows it as a disk, [`writer`] adds a generation.

pub mod catalogue;
pub mod changes;
mod chunk_cache;
pub mod codec;
pub mod frame;
pub mod generation;
pub mod id;
pub mod index;
pub mod layout;
pub mod node;
pub mod pack;
pub mod place_map;
pub mod reader;
pub mod record;
pub mod store;
pub mod table;
pub mod tree;
pub mod verdict;
pub mod writer;

pub use generation::Generation;
pub use reader::{Image, OpenOptions};
pub use store::{FolderStore, PackStore};
pub use writer::{ImageWriter, WriterOptions};
