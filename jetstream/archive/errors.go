package archive

import (
	"errors"
	"fmt"
)

var (
	// ErrNotArchive is returned for a file that does not begin as an archive does.
	ErrNotArchive = errors.New("not an archive")
	// ErrNewer is returned for an archive of a version that this program does not
	// read.
	ErrNewer = errors.New("the archive is of a newer version than this program reads")
	// ErrTruncated is returned for an archive that ends before its end: its export
	// was interrupted, or a part was lost. What is before it is whole.
	ErrTruncated = errors.New("the archive is not complete")
	// ErrDamaged is returned for an archive whose bytes are not those that were
	// written.
	ErrDamaged = errors.New("the archive is damaged")
	// ErrComplete is returned by [ExportFile] for a file that is complete: it never
	// writes over one.
	ErrComplete = errors.New("the archive is complete already")
	// ErrOtherExport is returned by [ExportFile] for a file that an export of
	// another store, or of other commits, began.
	ErrOtherExport = errors.New("the file holds another export")
)

// FormatError is a place in an archive that cannot be read.
type FormatError struct {
	// Record is the number of the record, from 1, that is not there or not whole,
	// Offset that of the byte where the part of the file begins that holds it.
	Record uint64
	Offset int64
	Reason string
	// Cause is [ErrNotArchive], [ErrNewer], [ErrTruncated] or [ErrDamaged], or says
	// more than those.
	Cause error
}

// Error names the place and the reason.
func (e *FormatError) Error() string {
	return fmt.Sprintf("archive, record %d at offset %d: %s: %v", e.Record, e.Offset, e.Reason, e.Cause)
}

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Cause }
