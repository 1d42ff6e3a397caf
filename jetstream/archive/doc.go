// Package archive takes event stores elsewhere: into files and back, and into
// stores with another name, another number of partitions, or on other servers.
//
//   - [Export] and [ExportFile] write a store, a type, an aggregate or a range as an
//     archive: commits byte for byte, with checksums. An interrupted [ExportFile] is
//     completed by calling it again.
//   - [Import] appends an archive to a new store, [Copy] another store. Both go on
//     where the new store stands when they are called again.
//   - [Compare] and [CompareArchive] check that a copy is one.
//   - [NewReader] reads an archive without a store.
//
// A copy keeps ids, versions, order and bytes. Each commit says where and when it
// was stored first, so commands and events that were handled in the original are
// found in the copy. Positions are not kept: those of the original are refused.
//
// docs/archive.md specifies the format of archives and has the procedure for moving
// a store in use.
package archive
