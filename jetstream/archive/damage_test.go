package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// frames takes an archive apart: the first line and every frame.
func frames(t testing.TB, b []byte) [][]byte {
	t.Helper()
	line := bytes.IndexByte(b, '\n') + 1
	out := [][]byte{b[:line]}
	for b = b[line:]; len(b) > 0; {
		n := 5 + int(binary.BigEndian.Uint32(b[1:5])) + 8
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

// samples are an archive of several frames, packed and not.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	s := open(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	f := fill(t, s, 400)
	// Some commits that do not compress, so that a packed archive has several frames.
	var head jetstream.Head
	for i := range 12 {
		w := f.write("order big")
		w.After = head
		w.Decisions[0].Kind, w.Decisions[0].Trigger, w.Decisions[0].CommandID = jetstream.KindCommand, jetstream.Trigger{}, strconv.Itoa(i)
		w.Decisions[0].Outcome, w.Decisions[0].Code = jetstream.OutcomeEvents, ""
		w.Decisions[0].Events = []jetstream.EventData{{Name: "big", Data: noise(60_000)}}
		var err error
		if head, err = s.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	plain, _ := export(t, s, archive.Config{})
	packed, _ := export(t, s, archive.Config{Compress: true})
	return map[string][]byte{"plain": plain, "packed": packed}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// whereAndWhat wants an error to say where it is.
func whereAndWhat(t *testing.T, what string, err error, causes ...error) *archive.FormatError {
	t.Helper()
	fault, ok := errors.AsType[*archive.FormatError](err)
	if !ok || !slices.ContainsFunc(causes, func(c error) bool { return errors.Is(err, c) }) {
		t.Fatalf("%s: %v", what, err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("record %d at offset %d", fault.Record, fault.Offset)) {
		t.Errorf("%s: %v", what, err)
	}
	return fault
}

// TestDamagedArchives: whatever byte is another, wherever the file ends, whatever
// changes places – it is found, and named by record and offset; nothing before it
// is lost, nothing of it is taken.
func TestDamagedArchives(t *testing.T) {
	t.Parallel()
	for name, b := range samples(t) {
		all, r, err := messages(b)
		if err != nil || len(all) != 412 || r.Summary().Commits != 412 {
			t.Fatalf("%s: %d, %+v, %v", name, len(all), r.Summary(), err)
		}
		parts := frames(t, b)
		if len(parts) < 5 {
			t.Fatalf("%s: only %d frames", name, len(parts))
		}
		ends := make([]int, len(parts)) // of the frames
		for i, end := 0, 0; i < len(parts); i++ {
			end += len(parts[i])
			ends[i] = end
		}
		// Single bytes, near the seams and elsewhere.
		step, some := 1, 200
		if testing.Short() {
			step, some = 3, 50
		}
		rng := rand.New(rand.NewPCG(5, 6))
		offsets := make([]int, 0, 500)
		for _, end := range ends {
			for d := -10; d < 10; d += step {
				offsets = append(offsets, end+d)
			}
		}
		for range some {
			offsets = append(offsets, rng.IntN(len(b)))
		}
		for _, at := range offsets {
			if at < 0 || at >= len(b) {
				continue
			}
			bad := slices.Clone(b)
			bad[at] ^= byte(1 + rng.IntN(255))
			got, _, err := messages(bad)
			fault := whereAndWhat(t, fmt.Sprintf("%s: byte %d", name, at), err,
				archive.ErrDamaged, archive.ErrTruncated, archive.ErrNotArchive, archive.ErrNewer)
			if fault.Offset > int64(at) || int(fault.Record) != len(got)+1 {
				t.Errorf("%s: byte %d: offset %d, record %d after %d", name, at, fault.Offset, fault.Record, len(got))
			}
			if k, _ := slices.BinarySearch(ends, at+1); k > 0 && fault.Offset != int64(ends[k-1]) {
				t.Errorf("%s: byte %d, of the frame at %d, is found at %d", name, at, ends[k-1], fault.Offset)
			}
			same(t, all, got)
		}
		// Truncated anywhere.
		for _, at := range append(offsets, 0, 1) {
			if at < 0 || at >= len(b) {
				continue
			}
			got, _, err := messages(b[:at])
			_ = whereAndWhat(t, fmt.Sprintf("%s: cut at %d", name, at), err, archive.ErrTruncated)
			same(t, all, got)
		}
		// Frames that are missing, twice, or elsewhere.
		join := func(order ...int) []byte {
			var out []byte
			for _, i := range order {
				out = append(out, parts[i]...)
			}
			return out
		}
		last := len(parts) - 1
		for what, bad := range map[string][]byte{
			"missing":  join(append([]int{0, 1, 3}, seq(4, last)...)...),
			"twice":    join(append([]int{0, 1, 2, 2}, seq(3, last)...)...),
			"swapped":  join(append([]int{0, 1, 3, 2}, seq(4, last)...)...),
			"two ends": join(append(seq(0, last), last)...),
			"no head":  join(append([]int{0}, seq(2, last)...)...),
			"more":     append(slices.Clone(b), 0),
		} {
			got, _, err := messages(bad)
			_ = whereAndWhat(t, name+": "+what, err, archive.ErrDamaged)
			same(t, all, got)
		}
	}
}

func seq(from, to int) []int {
	var out []int
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}

// same wants a prefix.
func same(t *testing.T, all, got []jetstream.Message) {
	t.Helper()
	for i := range got {
		if got[i].Sequence != all[i].Sequence || !bytes.Equal(got[i].Data, all[i].Data) {
			t.Fatalf("record %d is another", i+1)
		}
	}
}

// TestForeignArchives: what is no archive, or of a version to come, is said to be
// that; a frame of one archive has no place in another.
func TestForeignArchives(t *testing.T) {
	t.Parallel()
	all := samples(t)
	for text, want := range map[string]error{
		"PK\x03\x04 a zip file, say":          archive.ErrNotArchive,
		"rossby-archivf 1\n":                  archive.ErrNotArchive,
		"":                                    archive.ErrTruncated,
		"rossby":                              archive.ErrTruncated,
		"rossby-archive 2\nwhatever":          archive.ErrNewer,
		"rossby-archive 10\nwhatever":         archive.ErrNewer,
		"rossby-archive 1\n":                  archive.ErrTruncated,
		"rossby-archive 1\nX\x00\x00":         archive.ErrTruncated,
		"rossby-archive 1\nX\x00\x00\x00\x00": archive.ErrDamaged,
		"rossby-archive 1\nH\xff\xff\xff\xff": archive.ErrDamaged, // 4 GiB of header
		"rossby-archive 1\nR\x04\x00\x00\x00": archive.ErrTruncated,
	} {
		_, _, err := messages([]byte(text))
		_ = whereAndWhat(t, text, err, want)
	}
	a, b := frames(t, all["plain"]), frames(t, all["packed"])
	a[2] = b[2]
	_, _, err := messages(slices.Concat(a...))
	_ = whereAndWhat(t, "another's frame", err, archive.ErrDamaged)
}

// TestImportOfDamage: what is before the damage arrives, whole, and the archive as
// it should be completes it.
func TestImportOfDamage(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	fill(t, from, 800) // more than one frame
	b, _ := export(t, from, archive.Config{})
	to := open(t, nc, jetstream.Config{Partitions: 3})
	bad := slices.Clone(b)
	bad[len(bad)-len(bad)/4] ^= 1
	p, err := archive.Import(t.Context(), bytes.NewReader(bad), to, archive.ImportConfig{})
	fault := whereAndWhat(t, "import", err, archive.ErrDamaged)
	if p.Commits == 0 || fault.Record != p.Commits+1 || uint64(len(contents(t, to))) != p.Commits {
		t.Errorf("%+v, %+v, stored %d", p, fault, len(contents(t, to)))
	}
	if again := mustImport(t, b, to); again.Commits != 800-p.Commits || again.Present != p.Commits {
		t.Errorf("%+v after %+v", again, p)
	}
	wantCopy(t, from, to)
}
