package cli_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestStore(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 500)
	b.account("a2", 10)

	b.rossby("store", "ls").ends(0).says("NAME", "bank")
	var rows []struct {
		Name     string
		Commits  int
		Subjects int
	}
	b.rossby("store", "ls", "--json").ends(0).decode(&rows)
	if len(rows) != 1 || rows[0].Name != "bank" || rows[0].Commits != 3 || rows[0].Subjects != 2 {
		t.Errorf("%+v", rows)
	}
	last, err := b.store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.rossby("store", "info", "bank").ends(0).says("Id:", b.store.ID(), last.String())
	b.rossby("store", "durability").ends(0).says("At least:", "single-lazy")
	b.rossby("store", "durability", "--require", "fsynced").ends(4).fails("fsynced")
	b.rossby("store", "durability", "--require", "single-lazy").ends(0)

	b.rossby("store", "verify").ends(0).says("bank: 3 commits of 2 aggregates: 0 faults")
	b.rossby("store", "verify", "--type", "account", "--id", "a1").ends(0)

	// Somebody writes into the stream behind Rossby's back.
	subject, err := b.store.Subject("account", "a1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.nc.Request(subject, []byte("\x1b[2Jnonsense"), natstest.Patience); err != nil {
		t.Fatal(err)
	}
	b.rossby("store", "verify").ends(4).says("unreadable", subject, "1 faults").fails("not as it should be")
	var f struct {
		Kind     string
		Sequence int
	}
	b.rossby("store", "verify", "--json").ends(4).decode(&f)
	if f.Kind != "unreadable" || f.Sequence != 5 {
		t.Errorf("%+v", f)
	}
}

// TestStoreChoice: the store is said, or the only one.
func TestStoreChoice(t *testing.T) {
	b := newBank(t)
	b.rossby("events", "tail", "--no-follow").ends(0)
	b.rossby("store", "info", "bnk").ends(3).fails(`store "bnk": not found; did you mean bank?`)
	b.rossby("view", "status", "accounts", "--store", "bnk").ends(3).fails(`store "bnk": not found; did you mean bank?`)
	if _, err := jetstream.Open(t.Context(), b.nc, jetstream.Config{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	b.rossby("events", "tail", "--no-follow").ends(2).fails("several stores", "--store", "bank, other")
	b.rossby("store", "info", "--store", "other").ends(0).says("other")
	t.Setenv("ROSSBY_STORE", "bank")
	b.rossby("store", "info").ends(0).says("bank")
	empty := &bank{t: t, url: natstest.Run(t).URL()}
	empty.rossby("store", "ls").ends(0).says("There is no store.")
	empty.rossby("view", "ls").ends(3)
}

// TestContexts: NATS is found as the nats command finds it.
func TestContexts(t *testing.T) {
	b := newBank(t)
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	dir := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "here.json"), `{"url":"`+b.url+`"}`)
	write(filepath.Join(dir, "nowhere.json"), `{"url":"nats://127.0.0.1:1"}`)
	at := func(code int, args ...string) {
		t.Helper()
		timeout := natstest.Patience
		if code != 0 {
			timeout = 100 * time.Millisecond // nobody is there, however long it is waited for
		}
		run(t, append([]string{"store", "ls", "--timeout", timeout.String()}, args...)...).ends(code)
	}
	at(0, "--context", "here")
	at(2, "--context", "missing")
	at(5, "--context", "nowhere")
	at(0, "--context", "nowhere", "--server", b.url)
	write(filepath.Join(home, "nats", "context.txt"), "here\n")
	at(0)
	at(5, "--context", "nowhere")
	at(5, "--no-context", "--server", "nats://127.0.0.1:1")
	t.Setenv("NATS_CONTEXT", "nowhere")
	at(5)
	t.Setenv("NATS_URL", b.url)
	at(0)

	// How long is waited, too, unless a flag says so.
	t.Setenv("NATS_TIMEOUT", natstest.Patience.String())
	run(t, "store", "ls").ends(0)
	t.Setenv("NATS_TIMEOUT", "soon")
	run(t, "store", "ls").ends(2).fails(`$NATS_TIMEOUT "soon"`)
	at(0)
	t.Setenv("NATS_TIMEOUT", "1ms")
	at(5, "--no-context", "--server", "nats://127.0.0.1:1")
	run(t, "store", "ls", "--no-context", "--server", "nats://127.0.0.1:1").ends(5)
}

func TestArchive(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	for _, id := range []string{"a1", "a2", "a3"} {
		b.account(id, 700, 500, 100)
	}
	dir := t.TempDir()
	file, part := filepath.Join(dir, "bank.rossby"), filepath.Join(dir, "a1.rossby")
	b.rossby("store", "export", file, "--compress").ends(0).says("9 commits", "SHA-256:")
	b.rossby("store", "export", file, "--compress").ends(6).fails("complete already")
	b.rossby("store", "export", part, "--type", "account", "--id", "a1").ends(0).says("3 commits")
	b.rossby("store", "import", file, "--store", "copy", "--partitions", "4", "--compare").ends(0).
		says(`store "copy": 9 commits`, "9 commits compared: 0 differences")
	b.rossby("store", "import", file, "--store", "copy").ends(0).says(`0 commits`, "9 were there")
	b.rossby("store", "import", file, "--store", "bank").ends(1).fails("itself")
	other := newBank(t)
	other.account("b1", 1)
	other.rossby("store", "import", file, "--store", "bank").ends(6).fails("not a copy")
	b.rossby("store", "import", filepath.Join(dir, "none"), "--store", "copy").ends(3)
	b.rossby("aggregate", "show", "account/a1", "--store", "copy").ends(0).says("Copied from:", b.store.ID())

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	broken := filepath.Join(dir, "broken.rossby")
	if err := os.WriteFile(broken, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.rossby("store", "import", broken, "--store", "broken").ends(4)
	if err := os.WriteFile(broken, []byte("a letter to my aunt"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.rossby("store", "import", broken, "--store", "broken").ends(2).fails("not an archive")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 500)
	b.account("a2", 10)
	c, err := b.store.Last(t.Context(), "account", "a1", jetstream.Leader)
	if err != nil {
		t.Fatal(err)
	}
	b.rossby("events", "tail", "--no-follow").ends(0).
		says("#2  account/a1 v1  opened", "#3  account/a1 v2  debited", `"Cents":500`, "account/a2")
	lines := func(args ...string) []string {
		t.Helper()
		out := b.rossby(append([]string{"events", "tail", "--no-follow", "--json"}, args...)...).ends(0).out
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	if got := lines("-n", "2"); len(got) != 2 || !strings.Contains(got[0], `"sequence":3`) || !strings.Contains(got[1], `"sequence":4`) {
		t.Errorf("%q", got)
	}
	if got := lines("--event", "debited"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := lines("--type", "account", "--id", "a1"); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := lines("--since", "1h"); len(got) != 3 {
		t.Errorf("%q", got)
	}

	for _, what := range []string{"3", c.CommitID, c.EventID(0), b.store.Position(3).String()} {
		b.rossby("events", "show", what).ends(0).says(c.CommitID, "debited", `{"Cents":500}`, "State after it", `{"Cents":200}`)
	}
	b.rossby("events", "show", "1").ends(3) // the store's first message is no commit
	b.rossby("events", "show", "99").ends(3).fails("which ends with 4")
	b.rossby("events", "show", "nobody.0").ends(3)
}

// TestTail: what is stored while it follows is shown, once, and an interrupt is its
// end.
func TestTail(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 1, 2, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &watcher{seen: make(chan string, 100)}
	code := make(chan int, 1)
	go func() { code <- w.run(ctx, b, "events", "tail", "--json", "-n", "1") }()
	w.await(t, `"version":4`)
	b.account("a2", 5, 4)
	w.await(t, `"id":"a2"`)
	w.await(t, `"name":"debited"`)
	if _, err := b.repo.Execute(t.Context(), "a1", debit{9}); err != nil {
		t.Fatal(err)
	}
	w.await(t, `"version":5`)
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

// TestInterrupt: an interrupt is told from a failure.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt"))
	for _, args := range [][]string{
		{"store", "verify"}, {"store", "export", filepath.Join(t.TempDir(), "x")}, {"view", "ls"}, {"bench"},
	} {
		b.rossbyIn(ctx, args...).ends(130).fails("interrupted")
	}
}

func TestAggregate(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.service()
	b.account("a1", 700, 500, 100)
	b.rossby("aggregate", "show", "account/a1").ends(0).says("Version:    3", "State after it: {\"Cents\":100}")
	b.rossby("aggregate", "show", "account", "a1").ends(0)
	b.rossby("aggregate", "show", "account/a2").ends(3).fails("account/a2")
	b.rossby("aggregate", "show", "acount/a1").ends(3).fails("did you mean account?")
	out := b.rossby("aggregate", "history", "account/a1").ends(0).out
	if got := strings.Count(out, "\n"); got != 3 {
		t.Errorf("%d events:\n%s", got, out)
	}
	out = b.rossby("aggregate", "history", "account/a1", "--newest", "-n", "1").ends(0).says("v3  debited").out
	if got := strings.Count(out, "\n"); got != 1 {
		t.Errorf("%d events:\n%s", got, out)
	}
	b.rossby("aggregate", "history", "account/a2").ends(3)
	b.rossby("aggregate", "at", "account/a1", "--version", "2").ends(0).says("State after it: {\"Cents\":200}")
	b.rossby("aggregate", "at", "account/a1", "--version", "4").ends(3).fails("which has 3")
	b.rossby("aggregate", "at", "account/a1", "--time", "2999-01-01T00:00:00Z").ends(0).says("State after it: {\"Cents\":100}")
	b.rossby("aggregate", "at", "account/a1", "--time", "1999-01-01T00:00:00Z").ends(3)

	// Two events of one commit, without a state.
	data := make([]jetstream.EventData, 2)
	for i := range data {
		var err error
		if data[i], err = events.Encode(opened{int64(i)}, b.store.Codec()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.store.Append(t.Context(), jetstream.Write{
		Type: "account", ID: "a3", Decisions: []jetstream.Decision{{Events: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.rossby("aggregate", "at", "account/a3", "--version", "1").ends(0).
		says("cannot be folded", "Version 1 lies within this commit")
}

// TestAggregateKeptState: a state that is too large for the commits is shown from the
// bucket, and with it which version it is of.
func TestAggregateKeptState(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	large := aggregate.New[account](events, aggregate.StateLimit(0),
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("debit", func(_ account, c debit, _ aggregate.Decision) ([]any, error) { return []any{debited(c)}, nil }),
	)
	repo, err := aggregate.NewRepository(b.store, large, aggregate.RepositoryConfig{StateEvery: 2, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	b.repo = repo
	b.account("a/1:ü", 700, 500)
	show := func(args ...string) result { return b.rossby(append([]string{"aggregate"}, args...)...).ends(0) }
	natstest.Eventually(t, "the state is kept", func() error {
		if r := show("show", "account", "a/1:ü"); !strings.Contains(r.out, `State after it, kept beside the commits: {"Cents":200}`) {
			return errors.New(r.out)
		}
		return nil
	})
	show("at", "account", "a/1:ü", "--version", "1").says("State after it: (none is stored")
	if _, err := repo.Execute(t.Context(), "a/1:ü", debit{1}); err != nil {
		t.Fatal(err)
	}
	show("show", "account", "a/1:ü").says(`State at version 2, the newest that is kept beside the commits: {"Cents":200}`)
	var row struct {
		State struct {
			Kept    bool
			Version int
			Data    account
		}
	}
	show("show", "account", "a/1:ü", "--json").decode(&row)
	if !row.State.Kept || row.State.Version != 2 || row.State.Data.Cents != 200 {
		t.Errorf("%+v", row)
	}
}

// TestReadable: whatever a codec stores is shown as JSON, and what cannot be is said.
func TestReadable(t *testing.T) {
	t.Parallel()
	type all struct {
		Text  string
		Bytes []byte
		Big   uint64
		Small float64
		Maps  map[string][]*bool
	}
	schema := jetstream.NewSchema("thing", jetstream.Event[all]("made"))
	e := all{Text: "<é\x1b[2J>", Bytes: []byte{1, 2}, Big: 1 << 63, Small: 0.5, Maps: map[string][]*bool{"k": {nil, nil}}}
	url := natstest.Run(t).URL()
	nc := natstest.Conn(t, url)
	for _, codec := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		b := &bank{t: t, url: url, nc: nc}
		var err error
		if b.store, err = jetstream.Open(t.Context(), nc, jetstream.Config{Name: codec.String(), Codec: codec}); err != nil {
			t.Fatal(err)
		}
		data, err := schema.Encode(e, codec)
		if err != nil {
			t.Fatal(err)
		}
		secret := data
		secret.KeyRef = "key-7"
		_, err = b.store.Append(t.Context(), jetstream.Write{
			Type: "thing", ID: "t1", Decisions: []jetstream.Decision{{
				Events: []jetstream.EventData{data, secret}, Metadata: map[string]string{"by": "\x1b[2Jada"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r := b.rossby("events", "tail", "--no-follow", "--json", "--store", codec.String()).ends(0)
		var got struct{ Data all }
		r.decode(&got)
		if got.Data.Text != e.Text || string(got.Data.Bytes) != "\x01\x02" || got.Data.Big != e.Big || got.Data.Small != 0.5 ||
			len(got.Data.Maps["k"]) != 2 {
			t.Errorf("%v: %+v", codec, got)
		}
		r.says(`"keyRef":"key-7"`)
		r = b.rossby("events", "tail", "--no-follow", "--store", codec.String()).ends(0).says("encrypted under key-7")
		shown := b.rossby("events", "show", "2", "--store", codec.String()).ends(0).says("by= [2Jada")
		if strings.Contains(r.out+shown.out, "\x1b") {
			t.Errorf("%v: an event moves the terminal's cursor: %q", codec, r.out+shown.out)
		}
	}
}

// TestLongWork: long work shows how far it is, to whoever watches, and to nobody else.
func TestLongWork(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 1, 2, 3)
	b.view()
	file := filepath.Join(t.TempDir(), "f")
	for _, work := range []struct{ line, shows string }{
		{"store verify bank", "\rverify ["}, {"store export " + file + " --store bank", "\rexport ["},
		{"store import " + file + " --store copy --compare", "\rimport "},
		{"store import " + file + " --store copy2 --compare", "\rcompare ["},
		{"view rebuild accounts --store bank", "\rrebuild ["}, {"events show none --store bank", "\rsearch ["},
		{"bench -n 3", "\rbench ["},
	} {
		b.errTerminal = true
		r := b.rossby(words(work.line)...)
		text := strings.ReplaceAll(r.err, "\x1b[K", "")
		if !strings.Contains(text, work.shows) {
			t.Errorf("%s: %q is not in %q", work.line, work.shows, text)
		}
		if work.shows[1] == 'v' || work.shows[1] == 's' { // those that can be repeated
			b.errTerminal = false
			if r := b.rossby(words(work.line)...); strings.ContainsAny(r.err, "\r\x1b") {
				t.Errorf("%s draws where nobody watches: %q", work.line, r.err)
			}
		}
	}
}
