package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/rossby-go/rossby/jetstream"
)

// Reader reads an archive from its beginning to its end. Memory is bounded by
// its frames, and nothing is allocated for what a damaged one only promises.
type Reader struct {
	r      *bufio.Reader
	hash   hash.Hash
	header Header
	// offset is where the next frame begins; everything before it is whole.
	offset  int64
	summary Summary
	done    bool
}

// NewReader reads the header. Errors are a [*FormatError].
func NewReader(r io.Reader) (*Reader, error) {
	out := &Reader{r: bufio.NewReaderSize(r, blockSize), hash: sha256.New()}
	begin := make([]byte, len(magic)+len(version))
	n, err := io.ReadFull(out.r, begin)
	switch have := string(begin[:n]); {
	case !strings.HasPrefix(have, magic) && !strings.HasPrefix(magic, have):
		return nil, out.fault("it begins with other bytes", ErrNotArchive)
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, out.fault("read", err)
	case err != nil:
		return nil, out.fault("it ends within its first line", ErrTruncated)
	case string(begin[len(magic):]) != version:
		return nil, out.fault(fmt.Sprintf("version %q, this program reads %q", begin[len(magic):], version[:1]), ErrNewer)
	}
	out.hash.Write(begin)
	out.offset = int64(len(begin))
	kind, body, err := out.frame()
	if err != nil {
		return nil, err
	}
	if kind != frameHeader {
		return nil, out.fault(fmt.Sprintf("a frame of kind %q stands before the header", kind), ErrDamaged)
	}
	if err := json.Unmarshal(body, &out.header); err != nil {
		return nil, out.fault("the header", fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	out.offset += frameSize(body)
	if h := &out.header; h.Format != jetstream.FormatVersion || h.Compression != "" && h.Compression != compressionS2 {
		return nil, out.fault(fmt.Sprintf("stored format %d, compression %q", h.Format, h.Compression), ErrNewer)
	}
	return out, nil
}

// Header says what the archive holds.
func (r *Reader) Header() Header { return r.header }

// Summary is that of the archive once all of it was read, of what was read before.
func (r *Reader) Summary() Summary { return r.summary }

// Messages yields the messages of the archive as they stood in the store. It ends
// when the archive's end was read and agreed with what came before, or with a
// [*FormatError]. It can be ranged over once.
func (r *Reader) Messages() iter.Seq2[jetstream.Message, error] {
	return func(yield func(jetstream.Message, error) bool) {
		for !r.done {
			kind, body, err := r.frame()
			if err == nil && (kind == frameRecords || kind == framePacked) {
				more, err := r.block(kind, body, yield)
				if err != nil {
					yield(jetstream.Message{}, err)
				}
				if !more || err != nil {
					return
				}
				r.offset += frameSize(body)
				continue
			}
			if err == nil {
				err = r.end(kind, body)
			}
			if err != nil {
				yield(jetstream.Message{}, err)
				return
			}
		}
	}
}

// block yields the records of a frame.
func (r *Reader) block(
	kind byte, body []byte, yield func(jetstream.Message, error) bool,
) (more bool, err error) {
	unpacked := body
	if kind == framePacked {
		n, err := s2.DecodedLen(body)
		if err == nil && n > maxBlock {
			err = fmt.Errorf("%d bytes", n)
		}
		if err == nil {
			unpacked, err = s2.Decode(nil, body)
		}
		if err != nil {
			return false, r.fault("decompress", fmt.Errorf("%w: %w", ErrDamaged, err))
		}
	}
	for rest := (records{b: unpacked}); len(rest.b) > 0; {
		m, err := rest.next()
		if err != nil {
			return false, r.fault("the record", err)
		}
		if err := r.verify(&m); err != nil {
			return false, err
		}
		r.summary.add(&m)
		if !yield(m, nil) {
			return false, nil
		}
	}
	return true, nil
}

// verify refuses records that the archive cannot hold.
func (r *Reader) verify(m *jetstream.Message) error {
	h := &r.header
	switch {
	case m.Sequence <= max(h.After, r.summary.Last):
		return r.fault(fmt.Sprintf("sequence %d follows %d", m.Sequence, max(h.After, r.summary.Last)), ErrDamaged)
	case !strings.HasPrefix(m.Subject, h.Store+".event."):
		return r.fault(fmt.Sprintf("subject %q is not one of store %q", m.Subject, h.Store), ErrDamaged)
	}
	c, err := jetstream.Decode(m)
	switch {
	case err != nil:
		return r.fault("no commit", fmt.Errorf("%w: %w", ErrDamaged, err))
	case h.Type != "" && c.Type != h.Type, h.ID != "" && c.ID != h.ID:
		return r.fault(fmt.Sprintf("%s %q is not what the archive is limited to", c.Type, c.ID), ErrDamaged)
	}
	return nil
}

// end reads the end.
func (r *Reader) end(kind byte, body []byte) error {
	if kind != frameEnd {
		return r.fault(fmt.Sprintf("a frame of unknown kind %q", kind), ErrDamaged)
	}
	var said Summary
	if err := json.Unmarshal(body, &said); err != nil {
		return r.fault("the end", fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	got := r.summary
	got.SHA256 = said.SHA256 // compared by frame
	if said != got {
		return r.fault(fmt.Sprintf("the end speaks of %d commits up to %d, there are %d up to %d",
			said.Commits, said.Last, got.Commits, got.Last), ErrDamaged)
	}
	if _, err := r.r.ReadByte(); err == nil {
		return r.fault("bytes stand after the end", ErrDamaged)
	}
	r.summary, r.done = said, true
	return nil
}

// frame reads a frame and its checksum.
func (r *Reader) frame() (kind byte, body []byte, err error) {
	head := make([]byte, frameHead)
	if err := r.full(head); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	most := uint32(maxText)
	switch head[0] {
	case frameRecords, framePacked:
		most = maxBlock + maxBlock/6 + 32 // what S2 may add to what does not compress
	case frameHeader, frameEnd:
	default:
		return 0, nil, r.fault(fmt.Sprintf("a frame of unknown kind %q", head[0]), ErrDamaged)
	}
	if n > most {
		return 0, nil, r.fault(fmt.Sprintf("a frame of %d bytes", n), ErrDamaged)
	}
	var buf bytes.Buffer // grows with what there is
	if got, err := io.CopyN(&buf, r.r, int64(n)); err != nil {
		return 0, nil, r.short(err, fmt.Sprintf("%d of %d bytes of a frame", got, n))
	}
	before := ""
	if head[0] == frameEnd {
		before = hex.EncodeToString(r.hash.Sum(nil))
	}
	r.hash.Write(head)
	r.hash.Write(buf.Bytes())
	want := check(r.hash)
	sum := make([]byte, frameCheck)
	if err := r.full(sum); err != nil {
		return 0, nil, err
	}
	if !bytes.Equal(sum, want) {
		return 0, nil, r.fault("the checksum of the frame, or of what is before it, differs", ErrDamaged)
	}
	r.hash.Write(sum)
	if head[0] == frameEnd {
		var said Summary
		if json.Unmarshal(buf.Bytes(), &said) == nil && said.SHA256 != before {
			return 0, nil, r.fault("the end's checksum differs", ErrDamaged)
		}
		return frameEnd, buf.Bytes(), nil
	}
	return head[0], buf.Bytes(), nil
}

func frameSize(body []byte) int64 { return int64(frameHead + len(body) + frameCheck) }

func (r *Reader) full(b []byte) error {
	if n, err := io.ReadFull(r.r, b); err != nil {
		return r.short(err, fmt.Sprintf("%d of %d bytes", n, len(b)))
	}
	return nil
}

func (r *Reader) short(err error, what string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.fault("there are "+what, ErrTruncated)
	}
	return r.fault("read", err)
}

func (r *Reader) fault(reason string, cause error) error {
	return &FormatError{Record: r.summary.Commits + 1, Offset: r.offset, Reason: reason, Cause: cause}
}
