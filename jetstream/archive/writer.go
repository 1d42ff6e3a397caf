package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/s2"

	"github.com/rossby-go/rossby/jetstream"
)

// writer writes an archive.
type writer struct {
	w    io.Writer
	hash hash.Hash
	pack bool

	block   []byte
	packed  []byte
	summary Summary
	// whole is what of the summary is in frames that are written.
	whole Summary
}

func newWriter(w io.Writer, h *Header) (*writer, error) {
	out := &writer{w: w, hash: sha256.New(), pack: h.Compression != ""}
	body, err := text(h)
	if err != nil {
		return nil, err
	}
	if err := out.write([]byte(magic + version)); err != nil {
		return nil, err
	}
	return out, out.frame(frameHeader, body)
}

// write puts bytes out and into the checksum.
func (w *writer) write(b []byte) error {
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("archive: write: %w", err)
	}
	w.hash.Write(b)
	return nil
}

// frame writes a part of the archive with a checksum of everything up to it, so
// that parts cannot change places.
func (w *writer) frame(kind byte, body []byte) error {
	head := [frameHead]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(body))) //nolint:gosec // below maxBlock
	if err := w.write(head[:]); err != nil {
		return err
	}
	if err := w.write(body); err != nil {
		return err
	}
	return w.write(check(w.hash))
}

func check(h hash.Hash) []byte {
	var sum [sha256.Size]byte
	return h.Sum(sum[:0])[:frameCheck]
}

func (w *writer) add(m *jetstream.Message) (flushed bool, err error) {
	w.block = appendRecord(w.block, m)
	w.summary.add(m)
	if len(w.block) < blockSize {
		return false, nil
	}
	return true, w.flush()
}

// flush ends the block.
func (w *writer) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	kind, body := byte(frameRecords), w.block
	if w.pack {
		if n := s2.MaxEncodedLen(len(body)); cap(w.packed) < n {
			w.packed = make([]byte, n)
		}
		kind, body = framePacked, s2.Encode(w.packed[:cap(w.packed)], body)
	}
	err := w.frame(kind, body)
	w.block = w.block[:0]
	w.whole = w.summary
	return err
}

// end completes the archive.
func (w *writer) end() (Summary, error) {
	if err := w.flush(); err != nil {
		return w.whole, err
	}
	w.summary.SHA256 = hex.EncodeToString(w.hash.Sum(nil))
	body, err := text(w.summary)
	if err == nil {
		err = w.frame(frameEnd, body)
	}
	return w.summary, err
}
