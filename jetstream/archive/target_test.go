package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// one is a commit of one event.
func one(id string, after jetstream.Head, data []byte) jetstream.Write {
	return jetstream.Write{Type: "account", ID: id, After: after, Decisions: []jetstream.Decision{{
		CommandID: "c", Events: []jetstream.EventData{{Name: "happened", Data: data}},
	}}}
}

// TestTargetsThatAreRefused: nothing is ever added to what is no copy.
func TestTargetsThatAreRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	fill(t, from, 300)
	b, _ := export(t, from, archive.Config{})
	targets := map[string]*jetstream.Store{"itself": from, "another codec": open(t, nc, jetstream.Config{Codec: jetstream.JSON})}
	wants := map[string]error{}
	for _, what := range []string{"written to before", "written to after", "a copy of another"} {
		targets[what], wants[what] = open(t, nc, jetstream.Config{}), jetstream.ErrNotACopy
	}
	add := func(s *jetstream.Store) {
		if _, err := s.Append(t.Context(), one("x", jetstream.Head{}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	add(targets["written to before"])
	mustImport(t, b, targets["written to after"])
	add(targets["written to after"])
	other := open(t, nc, jetstream.Config{})
	fill(t, other, 30)
	otherBytes, _ := export(t, other, archive.Config{})
	mustImport(t, otherBytes, targets["a copy of another"])

	for what, to := range targets {
		before, err := to.LastSequence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := archive.Import(t.Context(), bytes.NewReader(b), to, archive.ImportConfig{})
		_, err2 := archive.Copy(t.Context(), from, to, archive.CopyConfig{})
		for _, err := range []error{err1, err2} {
			if err == nil || wants[what] != nil && !errors.Is(err, wants[what]) || !strings.Contains(err.Error(), to.Name()) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if after, err := to.LastSequence(t.Context()); err != nil || after != before {
			t.Errorf("%s: it was written to: %d, %v", what, after, err)
		}
	}
	var settings *jetstream.SettingsError
	if _, err := archive.Import(t.Context(), bytes.NewReader(b), targets["another codec"], archive.ImportConfig{}); !errors.As(err, &settings) ||
		settings.Field != "Codec" {
		t.Errorf("codec: %v", err)
	}
}

// TestTargetsThatHoldOtherParts: a store that was to hold less is no beginning of a
// copy that is to hold more, though its last commit is the last of that, too: what
// stands before it would be passed over and be missing.
func TestTargetsThatHoldOtherParts(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	for _, id := range []string{"first", "second", "last"} {
		w := one(id, jetstream.Head{}, nil)
		if id == "first" {
			w.Type = "order"
		}
		if _, err := from.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	everything, typ, id := archive.Config{}, archive.Config{Type: "account"}, archive.Config{Type: "account", ID: "last"}
	for what, c := range map[string]struct{ has, wanted archive.Config }{
		"a type, not everything":   {typ, everything},
		"an id, not everything":    {id, everything},
		"an id, not all of a type": {id, typ},
	} {
		has, _ := export(t, from, c.has)
		wanted, _ := export(t, from, c.wanted)
		to := open(t, nc, jetstream.Config{})
		mustImport(t, has, to)
		p, err1 := archive.Import(t.Context(), bytes.NewReader(wanted), to, archive.ImportConfig{})
		q, err2 := archive.Copy(t.Context(), from, to, archive.CopyConfig{Type: c.wanted.Type, ID: c.wanted.ID})
		if !errors.Is(err1, jetstream.ErrNotACopy) || !errors.Is(err2, jetstream.ErrNotACopy) {
			t.Errorf("%s: %+v, %v; %+v, %v", what, p, err1, q, err2)
		}
		// What it was to hold it holds.
		mustImport(t, has, to)
		if _, err := archive.Copy(t.Context(), from, to, archive.CopyConfig{Type: c.has.Type, ID: c.has.ID}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What goes on after everything is nothing for a store that holds a part of it.
	has, end := export(t, from, typ)
	if _, err := from.Append(t.Context(), one("new", jetstream.Head{}, nil)); err != nil {
		t.Fatal(err)
	}
	goesOn, _ := export(t, from, archive.Config{After: end.Position})
	to := open(t, nc, jetstream.Config{})
	mustImport(t, has, to)
	if p, err := archive.Import(t.Context(), bytes.NewReader(goesOn), to, archive.ImportConfig{}); !errors.Is(err, jetstream.ErrNotACopy) {
		t.Errorf("what goes on after everything: %+v, %v", p, err)
	}
}

// TestForeignWriter: somebody writes into the store while it is copied into. The copy
// ends there, with an error that says so, and the store is known to be none.
func TestForeignWriter(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, connect func() *nats.Conn, replicas int, _ *natstest.Cluster) {
		t.Helper()
		from := open(t, connect(), jetstream.Config{}) // with one replica, also where the copy has three
		fill(t, from, 1000)
		to := open(t, connect(), jetstream.Config{Replicas: replicas})
		foreign := one("foreign", jetstream.Head{}, nil)
		n := 0
		messages := func(yield func(jetstream.Message, error) bool) {
			for m, err := range from.Messages(t.Context(), "", "", jetstream.Range{}) {
				if n++; n == 700 {
					if _, err := to.Append(t.Context(), foreign); err != nil {
						t.Error(err)
					}
				}
				if !yield(m, err) {
					return
				}
			}
		}
		p, err := to.AppendCopies(t.Context(), jetstream.CopySource{StoreID: from.ID()}, messages)
		if !errors.Is(err, jetstream.ErrNotACopy) || p.Commits < 400 || p.Commits > 700 {
			t.Fatalf("%+v, %v", p, err)
		}
		report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{})
		if err != nil || report.Equal() {
			t.Errorf("it is said to be a copy: %+v, %v", report, err)
		}
	})
}

// TestLargeCommits: a commit as large as the server takes is copied, unless what a
// copy adds makes it too large for the target. Then everything before it is there,
// and the error names it.
func TestLargeCommits(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	run := func(maxPayload int32) *nats.Conn {
		srv, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		if !srv.ReadyForConnections(natstest.Patience) {
			t.Fatal("not ready")
		}
		return natstest.Conn(t, srv.ClientURL())
	}
	nc := run(most)
	from := open(t, nc, jetstream.Config{})
	head := jetstream.Head{}
	for _, size := range []int{10, most - 1000, 10} {
		var err error
		if head, err = from.Append(t.Context(), one("a", head, noise(size))); err != nil {
			t.Fatal(err)
		}
	}
	// The largest that fits at all.
	for data := noise(most); ; data = data[1:] {
		_, err := from.Append(t.Context(), one("b", jetstream.Head{}, data))
		if err == nil {
			break
		}
		if !is[*jetstream.RefusedError](err) {
			t.Fatal(err)
		}
	}
	if _, err := from.Append(t.Context(), one("c", jetstream.Head{}, nil)); err != nil {
		t.Fatal(err)
	}
	for _, pack := range []bool{false, true} {
		b, end := export(t, from, archive.Config{Compress: pack})
		if end.Commits != 5 {
			t.Errorf("%+v", end)
		}
		roomy := open(t, run(2*most), jetstream.Config{})
		mustImport(t, b, roomy)
		wantCopy(t, from, roomy)

		narrow := open(t, nc, jetstream.Config{})
		for range 2 {
			_, err := archive.Import(t.Context(), bytes.NewReader(b), narrow, archive.ImportConfig{})
			var refused *jetstream.RefusedError
			if !errors.As(err, &refused) || refused.ID != "b" || !errors.Is(err, nats.ErrMaxPayload) {
				t.Errorf("too large: %v", err)
			}
			if n := len(scan(t, narrow)); n != 3 {
				t.Errorf("%d commits are there", n)
			}
		}
	}
	// A limit of the stream's own is the server's to tell.
	limited := open(t, nc, jetstream.Config{})
	js := natstest.JetStream(t, nc)
	stream, err := js.Stream(t.Context(), limited.Name())
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgSize = 5000
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err = archive.Copy(t.Context(), from, limited, archive.CopyConfig{})
	if !is[*jetstream.RefusedError](err) || len(scan(t, limited)) != 1 {
		t.Errorf("a limit of the stream: %v, %d commits", err, len(scan(t, limited)))
	}
}

// TestCompareFinds: each way in which a store can fail to be a copy is found and
// named.
func TestCompareFinds(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	var heads [3]jetstream.Head
	for i := range 30 {
		var err error
		if heads[i%3], err = from.Append(t.Context(), one(fmt.Sprint("a", i%3), heads[i%3], []byte{0xc0})); err != nil {
			t.Fatal(err)
		}
	}
	var good []jetstream.Message
	for m, err := range from.Messages(t.Context(), "", "", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, m)
	}
	for want, forge := range map[archive.Kind]func(i int, m *nats.Msg) []*nats.Msg{
		archive.Missing: func(i int, m *nats.Msg) []*nats.Msg {
			if i == 29 {
				return nil
			}
			return []*nats.Msg{m}
		},
		archive.Extra: func(i int, m *nats.Msg) []*nats.Msg {
			if i != 10 {
				return []*nats.Msg{m}
			}
			more := nats.NewMsg(strings.Replace(m.Subject, "a1", "zz", 1))
			maps.Copy(more.Header, m.Header)
			more.Header["Rossby-Commit"], more.Header["Rossby-Chain"], more.Data = []string{"more"}, []string{"1 1 -"}, m.Data
			delete(more.Header, "Rossby-Origin")
			return []*nats.Msg{more, m}
		},
		archive.Payload: func(i int, m *nats.Msg) []*nats.Msg {
			if i == 12 {
				m.Data = bytes.Replace(m.Data, []byte{0xc0}, []byte{0xc2}, 1)
			}
			return []*nats.Msg{m}
		},
		archive.Headers: func(i int, m *nats.Msg) []*nats.Msg {
			if i == 13 {
				m.Header["traceparent"] = []string{"another"}
			}
			return []*nats.Msg{m}
		},
		archive.Place: func(i int, m *nats.Msg) []*nats.Msg {
			if i == 14 {
				m.Subject = strings.Replace(m.Subject, ".account.", ".order.", 1)
			}
			return []*nats.Msg{m}
		},
		archive.Origin: func(i int, m *nats.Msg) []*nats.Msg {
			if i == 15 {
				m.Header["Rossby-Origin"] = []string{from.ID() + " 17 2020-01-01T00:00:00Z"}
			}
			return []*nats.Msg{m}
		},
	} {
		to := open(t, nc, jetstream.Config{})
		for i, m := range good {
			msg := &nats.Msg{Subject: strings.Replace(m.Subject, from.Name(), to.Name(), 1), Header: nats.Header{}, Data: bytes.Clone(m.Data)}
			for k, v := range m.Header {
				if !strings.HasPrefix(k, "Nats-") {
					msg.Header[k] = v
				}
			}
			msg.Header["Rossby-Origin"] = []string{fmt.Sprintf("%s %d %s", from.ID(), m.Sequence, m.Time.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"))}
			for _, out := range forge(i, msg) {
				if _, err := nc.RequestMsg(out, natstest.Patience); err != nil {
					t.Fatal(err)
				}
			}
		}
		report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{})
		if err != nil || len(report.Differences) != 1 || report.Differences[0].Kind != want {
			t.Errorf("%s: %+v, %v", want, report, err)
			continue
		}
		d := report.Differences[0]
		if d.CommitID == "" || d.Type == "" || d.ID == "" || d.Source == 0 && d.Copy == 0 || !strings.HasPrefix(d.String(), string(want)+": commit ") {
			t.Errorf("%s: %s", want, d)
		}
		if want == archive.Missing && report.Commits != 29 || want == archive.Extra && report.Commits != 30 {
			t.Errorf("%s: %d commits are equal", want, report.Commits)
		}
	}
	// No more than asked for.
	empty := open(t, nc, jetstream.Config{})
	if report, err := archive.Compare(t.Context(), from, empty, archive.CompareConfig{Differences: 3}); err != nil || len(report.Differences) != 3 {
		t.Errorf("%+v, %v", report, err)
	}
}
