package archive

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// magic begins every archive; the line ends with the version.
const (
	magic   = "rossby-archive "
	version = "1\n"
)

// The kinds of frames. docs/archive.md specifies them.
const (
	frameHeader  = 'H'
	frameRecords = 'R'
	framePacked  = 'S' // records, compressed with S2
	frameEnd     = 'E'
)

const (
	// frameHead is the kind and the length of a frame, frameCheck its checksum.
	frameHead  = 5
	frameCheck = 8
	// blockSize is where a frame of records ends.
	blockSize = 256 << 10
	// maxRecord is the largest record: servers take no message above 64 MiB, and
	// what a record adds to its message is little.
	maxRecord = 65 << 20
	maxBlock  = blockSize + maxRecord
	// maxText bounds the header and the end.
	maxText = 64 << 10
)

// Header says what an archive holds.
type Header struct {
	// Store and StoreID are the name and the id of the store it was made of.
	Store   string `json:"store"`
	StoreID string `json:"storeId"`
	// Format, Partitions and Codec are those of the store.
	Format     int    `json:"format"`
	Partitions int    `json:"partitions"`
	Codec      string `json:"codec"`
	// Type and ID are the aggregate type and the aggregate that it is limited to.
	Type string `json:"type,omitempty"`
	ID   string `json:"id,omitempty"`
	// After is the sequence that it begins after, AfterCommit the id of the commit
	// there; the archive goes on where another one ended.
	After       uint64 `json:"after,omitempty"`
	AfterCommit string `json:"afterCommit,omitempty"`
	// To is the sequence of the store that it reaches.
	To uint64 `json:"to"`
	// Compression is "" or "s2".
	Compression string `json:"compression,omitempty"`
	// Created is when the export began.
	Created time.Time `json:"created"`
}

// Part tells whether the archive leaves out some of the store's aggregates.
func (h *Header) Part() bool { return h.Type != "" || h.ID != "" }

// Summary is what the end of an archive says of it.
type Summary struct {
	// Commits is the number of records, Bytes the size of their payloads.
	Commits uint64 `json:"commits"`
	Bytes   uint64 `json:"bytes"`
	// First and Last are the sequences of the first and the last record, LastCommit
	// is the id of the last one's commit.
	First      uint64 `json:"first,omitempty"`
	Last       uint64 `json:"last,omitempty"`
	LastCommit string `json:"lastCommit,omitempty"`
	// SHA256 is that of every byte before the end, in hexadecimal digits.
	SHA256 string `json:"sha256"`
}

// add counts a message.
func (s *Summary) add(m *jetstream.Message) {
	if s.Commits == 0 {
		s.First = m.Sequence
	}
	s.Commits++
	s.Bytes += uint64(len(m.Data))
	s.Last = m.Sequence
	s.LastCommit = one(m.Header, headerCommit)
}

// Headers of a commit: docs/format.md.
const (
	headerCommit   = "Rossby-Commit"
	headerOrigin   = "Rossby-Origin"
	headerTx       = "Rossby-Tx"
	headerOriginTx = "Rossby-Origin-Tx"
)

func one(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// appendRecord writes a message: numbers as varints, texts and bytes after their
// lengths, headers sorted by their names.
func appendRecord(b []byte, m *jetstream.Message) []byte {
	b = binary.AppendUvarint(b, m.Sequence)
	b = binary.AppendVarint(b, m.Time.UnixNano())
	b = appendText(b, m.Subject)
	var few [16]string
	names, n := few[:0], 0
	for name, values := range m.Header {
		if !jetstream.AddedHeader(name) {
			names = append(names, name)
			n += len(values)
		}
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(n))
	for _, name := range names {
		for _, value := range m.Header[name] {
			b = appendText(appendText(b, name), value)
		}
	}
	return appendText(b, m.Data)
}

func appendText[T string | []byte](b []byte, text T) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// records takes a block apart.
type records struct {
	b   []byte
	err error
}

func (r *records) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrDamaged, what)
	}
	r.b = nil
}

func (r *records) number(what string) uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail(what)
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *records) bytes(what string) []byte {
	n := r.number(what)
	if n > uint64(len(r.b)) {
		r.fail(what)
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// next reads a message. Nothing is allocated for what is only promised.
func (r *records) next() (jetstream.Message, error) {
	var m jetstream.Message
	m.Sequence = r.number("a record's sequence")
	nanos, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail("a record's time")
	} else {
		r.b = r.b[size:]
	}
	m.Time = time.Unix(0, nanos).UTC()
	m.Subject = string(r.bytes("a record's subject"))
	n := r.number("a record's headers")
	m.Header = make(nats.Header, min(n, 16))
	for range n {
		name := string(r.bytes("a header's name"))
		value := string(r.bytes("a header's value"))
		if r.err != nil {
			break
		}
		if name == "" {
			r.fail("a header without a name")
			break
		}
		m.Header[name] = append(m.Header[name], value)
	}
	m.Data = r.bytes("a record's payload")
	return m, r.err
}

// text writes the header or the end.
func text(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("archive: %d bytes of description", len(b))
	}
	return b, err
}
