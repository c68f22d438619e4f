//! The message log store of one group: no sockets, no consensus, no clock; I/O only through the Disk door.
