package archive_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// TestRanges: archives that go on after one another give the whole; each says where
// the next begins. What does not fit is refused before anything is written.
func TestRanges(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	f := newFiller(t, from)
	to := open(t, nc, jetstream.Config{Partitions: 2})
	parts := make([][]byte, 0, 5)
	var after jetstream.Position
	total := uint64(0)
	for range 5 {
		f.fill(300)
		b, end := export(t, from, archive.Config{After: after})
		total += end.Commits
		if end.Header.To != f.last || end.Last != f.last {
			t.Errorf("%+v, last commit at %d", end, f.last)
		}
		parts, after = append(parts, b), end.Position
	}
	if total != 1500 {
		t.Errorf("%d commits", total)
	}
	if _, err := archive.Import(t.Context(), bytes.NewReader(parts[1]), to, archive.ImportConfig{}); !is[*jetstream.CopyError](err) {
		t.Errorf("the second first: %v", err)
	}
	for i, b := range parts {
		mustImport(t, b, to)
		if i == 2 { // Once more is nothing more.
			if p := mustImport(t, b, to); p.Commits != 0 || p.Present != 300 {
				t.Errorf("again: %+v", p)
			}
			if _, err := archive.Import(t.Context(), bytes.NewReader(parts[0]), to, archive.ImportConfig{}); !errors.Is(err, jetstream.ErrNotACopy) {
				t.Errorf("an older one: %v", err)
			}
			if _, err := archive.Import(t.Context(), bytes.NewReader(parts[4]), to, archive.ImportConfig{}); !errors.Is(err, jetstream.ErrNotACopy) {
				t.Errorf("with one left out: %v", err)
			}
		}
		report, err := archive.CompareArchive(t.Context(), bytes.NewReader(b), to, archive.CompareConfig{})
		if err != nil || !report.Equal() || report.Commits != 300 {
			t.Errorf("part %d: %+v, %v", i, report, err)
		}
	}
	wantCopy(t, from, to)

	// UpTo ends with what stood there, and the transaction it belongs to.
	for _, c := range scan(t, from) {
		if c.Tx == nil || c.Tx.Index != 1 {
			continue
		}
		_, end := export(t, from, archive.Config{UpTo: from.Position(c.Sequence)})
		if end.Last != c.LastSequence() {
			t.Errorf("up to %d, the first of a transaction up to %d: ends at %d", c.Sequence, c.LastSequence(), end.Last)
		}
		var b bytes.Buffer
		_, err := archive.Export(t.Context(), from, &b, archive.Config{After: from.Position(c.Sequence)})
		if !is[*jetstream.InvalidError](err) || !strings.Contains(err.Error(), "within a transaction") || b.Len() > 0 {
			t.Errorf("after the first of a transaction: %v", err)
		}
		break
	}
	other := open(t, nc, jetstream.Config{})
	for what, cfg := range map[string]archive.Config{
		"Type":             {Type: "No"},
		"ID":               {Type: "order", ID: "a b"},
		"Type none":        {ID: "a"},
		"UpTo":             {UpTo: from.Position(99_999)},
		"After":            {After: from.Position(99_999)},
		"After, of a type": {Type: "none", After: from.Position(5)},
	} {
		if _, err := archive.Export(t.Context(), from, new(bytes.Buffer), cfg); !is[*jetstream.InvalidError](err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := archive.Export(t.Context(), from, new(bytes.Buffer), archive.Config{After: other.Position(2)}); !is[*jetstream.ForeignPositionError](err) {
		t.Errorf("a position of another store: %v", err)
	}
	if _, end := export(t, other, archive.Config{}); end.Commits != 0 {
		t.Errorf("of nothing: %+v", end)
	}
}

// TestSelections: a type, or an aggregate, by archive and by copy; what is left of
// transactions is one by itself, and says what it was.
func TestSelections(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	f := fill(t, from, 900)
	busiest := ""
	for key, head := range f.heads {
		if strings.HasPrefix(key, "order ") && (busiest == "" || head.Ordinal > f.heads[busiest].Ordinal) {
			busiest = key
		}
	}
	_, id, _ := strings.Cut(busiest, " ")
	for _, c := range []struct{ typ, id string }{{"account", ""}, {"order", id}} {
		b, _ := export(t, from, archive.Config{Type: c.typ, ID: c.id})
		imported, copied := open(t, nc, jetstream.Config{Partitions: 3}), open(t, nc, jetstream.Config{Partitions: 4})
		mustImport(t, b, imported)
		cfg := archive.CopyConfig{Type: c.typ, ID: c.id}
		for round := range 2 {
			p, err := archive.Copy(t.Context(), from, copied, cfg)
			if err != nil || (p.Commits > 0) != (round == 0) {
				t.Fatalf("round %d: %+v, %v", round, p, err)
			}
		}
		want, alone, rest := 0, 0, 0
		var all []*jetstream.Commit
		for _, commit := range scan(t, from) {
			if commit.Type == c.typ && (c.id == "" || commit.ID == c.id) {
				all = append(all, commit)
				want++
			}
		}
		for name, to := range map[string]*jetstream.Store{"imported": imported, "copied": copied} {
			wantChains(t, to)
			got := scan(t, to)
			if len(got) != want {
				t.Fatalf("%s %+v: %d commits of %d", name, c, len(got), want)
			}
			var tx *jetstream.Commit
			for i, g := range got {
				if w := all[i]; g.CommitID != w.CommitID || g.Origin == nil || g.Origin.Sequence != w.Sequence {
					t.Fatalf("%s %+v: %+v is not the copy of %+v", name, c, g, w)
				}
				switch {
				case g.Tx == nil && all[i].Tx != nil:
					alone++
				case g.Tx != nil:
					rest++
					if g.Tx.ID != all[i].Tx.ID || g.Tx.Index > 1 && (tx == nil || tx.Tx.ID != g.Tx.ID || tx.Tx.Index+1 != g.Tx.Index) {
						t.Errorf("%s: %+v follows %+v", name, g.Tx, tx)
					}
					if g.Tx.Index == g.Tx.Count {
						tx = nil
						continue
					}
				case tx != nil:
					t.Errorf("%s: transaction %+v is not whole", name, tx.Tx)
				}
				if tx = g; g.Tx == nil {
					tx = nil
				}
			}
			report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{Type: c.typ, ID: c.id})
			if err != nil || !report.Equal() || report.Commits != uint64(want) {
				t.Errorf("%s: %v, %v", name, report, err)
			}
		}
		if alone == 0 || c.id == "" && rest == 0 {
			t.Errorf("%+v: %d commits left alone, %d left of transactions: nothing was tested", c, alone, rest)
		}
		// What was left out cannot be added.
		if _, err := archive.Copy(t.Context(), from, copied, archive.CopyConfig{}); !is[*jetstream.CopyError](err) {
			t.Errorf("the rest: %v", err)
		}
	}
	// A damaged archive that lacks a part of a transaction is not taken for a
	// selection.
	to := open(t, nc, jetstream.Config{})
	part := func(yield func(jetstream.Message, error) bool) {
		for m, err := range from.Messages(t.Context(), "", "", jetstream.Range{}) {
			if err == nil {
				c, _ := jetstream.Decode(&m)
				if c.Tx != nil && c.Tx.Index == 2 {
					continue
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
	if _, err := to.AppendCopies(t.Context(), jetstream.CopySource{StoreID: from.ID()}, part); !is[*jetstream.CopyError](err) || !strings.Contains(err.Error(), "is of a transaction of") {
		t.Error(err)
	}
	wantWholeTransactions(t, to)
}

func scan(t testing.TB, s *jetstream.Store) []*jetstream.Commit {
	t.Helper()
	var all []*jetstream.Commit
	for c, err := range every(t, s) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}
