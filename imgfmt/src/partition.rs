//! Partition tables and known signatures.
