//! Chains of clusters in a file allocation table, which FAT and exFAT share: [`table`] says what follows a cluster, [`all`] follows the
//! chains of a whole volume, [`content`] reads one file, [`search`] finds the path of an entry.

pub mod all;
pub mod content;
pub mod search;
pub mod table;
