package aggregate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// These tests are docs/wire.md, claim by claim.

// served is an account a1 behind a service, and the beginning of its subjects.
func served(t *testing.T, cents int64) (*nats.Conn, *jetstream.Store, *aggregate.Repository[account], string) {
	t.Helper()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{cents})
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	return nc, store, repo, store.Name() + ".command.account."
}

// h makes headers of pairs.
func h(pairs ...string) nats.Header {
	out := nats.Header{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = []string{pairs[i+1]}
	}
	return out
}

type wireReply struct {
	ID        string `json:"id"`
	Version   uint64 `json:"version"`
	Position  string `json:"position"`
	Duplicate bool   `json:"duplicate"`
	Events    []struct {
		ID      string          `json:"id"`
		Name    string          `json:"name"`
		Version uint64          `json:"version"`
		Data    json.RawMessage `json:"data"`
	} `json:"events"`
}

// ok reads a success.
func ok(t *testing.T, m *nats.Msg) wireReply {
	t.Helper()
	var r wireReply
	if err := json.Unmarshal(m.Data, &r); err != nil || m.Header.Get(micro.ErrorCodeHeader) != "" {
		t.Fatalf("%v %s %v", m.Header, m.Data, err)
	}
	return r
}

func TestWire(t *testing.T) {
	t.Parallel()
	nc, store, _, command := served(t, 1)
	m := request(t, nc, command+"open.a2", `{"Cents":100}`, nil)
	r := ok(t, m)
	if r.ID != "a2" || r.Version != 1 || r.Duplicate || len(r.Events) != 1 || r.Events[0].Name != "opened" || r.Events[0].Version != 1 ||
		string(r.Events[0].Data) != `{"Cents":100}` || m.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%+v", r)
	}
	if p, err := jetstream.ParsePosition(r.Position); err != nil || p != store.Position(head(t, store)) {
		t.Fatal(r.Position, err)
	}
	if !strings.HasSuffix(r.Events[0].ID, ".0") {
		t.Fatal(r.Events[0].ID)
	}

	var info micro.Info
	if err := json.Unmarshal(request(t, nc, "$SRV.INFO."+store.Name()+"-account", "", nil).Data, &info); err != nil ||
		len(info.Endpoints) != 5 || info.Endpoints[0].QueueGroup != "rossby" {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestWireAfterAStop(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	stop := run(t, newService(t, repo, aggregate.ServiceConfig{}))
	subject := store.Name() + ".command.account.credit.a1"
	request(t, nc, subject, "", nil)
	stop()
	if _, err := nc.RequestWithContext(t.Context(), subject, nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
}

func TestWireBodies(t *testing.T) {
	t.Parallel()
	nc, _, _, command := served(t, 100)
	// Field names are the json tags', else Go's, in any case.
	ok(t, request(t, nc, command+"credit.a1", `{"cents":5}`, h("Content-Type", "application/json; charset=utf-8")))
	// No body is an empty one.
	if r := ok(t, request(t, nc, command+"credit.a1", "", nil)); r.Version != 2 || r.Events == nil {
		t.Fatalf("%+v", r)
	}
	body, err := msgpack.Marshal(map[string]any{"Cents": 7})
	if err != nil {
		t.Fatal(err)
	}
	m := request(t, nc, command+"credit.a1", string(body), h("Content-Type", "application/msgpack"))
	var packed struct {
		Version uint64 `msgpack:"version"`
		Events  []struct {
			Data msgpack.RawMessage `msgpack:"data"`
		} `msgpack:"events"`
	}
	if err := msgpack.Unmarshal(m.Data, &packed); err != nil || packed.Version != 3 || m.Header.Get("Content-Type") != "application/msgpack" {
		t.Fatalf("%+v %v %q", packed, err, m.Data)
	}
	var raw []byte
	var event credited
	if err := msgpack.Unmarshal(packed.Events[0].Data, &raw); err != nil {
		t.Fatal(err)
	}
	if err := msgpack.Unmarshal(raw, &event); err != nil || event.Cents != 7 {
		t.Fatal(event, err)
	}
	for what, c := range map[string]struct{ body, contentType string }{
		"no JSON": {"cents=5", ""}, "trailing bytes": {`{"cents":5}}`, ""}, "two values": {`{"cents":5}{}`, ""},
		"a number": {"5", ""}, "null": {" null", ""}, "unknown field": {`{"cent":5}`, ""}, "wrong type": {`{"cents":"5"}`, ""},
		"fraction": {`{"cents":0.5}`, ""}, "overflow": {`{"cents":9223372036854775808}`, ""},
		"other type": {"cents: 5", "application/yaml"}, "no type": {"{}", "json"},
		"empty msgpack": {"", "application/msgpack"}, "msgpack nil": {"\xc0", "application/msgpack"},
		"trailing msgpack": {string(body) + "\x00", "application/msgpack"}, "unknown msgpack field": {"\x81\xa4Cent\x05", "application/msgpack"},
		"cut msgpack": {string(body[:3]), "application/msgpack"}, "JSON as msgpack": {`{"cents":5}`, "application/msgpack"},
	} {
		m := request(t, nc, command+"credit.a1", c.body, h("Content-Type", c.contentType))
		if code, kind, _, reason := errorOf(t, m); code != "400" || kind != "invalid" || reason == "" {
			t.Errorf("%s: %v %s", what, m.Header, m.Data)
		}
	}
}

func TestWireErrors(t *testing.T) {
	t.Parallel()
	nc, _, _, command := served(t, 112)
	ok(t, request(t, nc, command+"credit.a1", `{"cents":1}`, h("Rossby-Command-Id", "id 1")))
	for what, c := range map[string]struct {
		subject, body           string
		header                  nats.Header
		code, kind, sub, reason string
	}{
		"rejected":      {"debit.a1", `{"cents":1000}`, nil, "422", "rejected", "insufficient-funds", "balance 113 is below 1000"},
		"not found":     {"debit.a2", `{"cents":1}`, nil, "404", "not-found", "", "not found"},
		"exists":        {"open.a1", `{"cents":1}`, nil, "409", "exists", "", "exists already"},
		"version":       {"debit.a1", `{"cents":1}`, h("Rossby-Expect-Version", "7"), "409", "conflict", "version", "expected version 7, it is 2"},
		"other payload": {"credit.a1", `{"cents":2}`, h("Rossby-Command-Id", "id 1"), "409", "conflict", "other-payload", "used before"},
		"bad version":   {"debit.a1", `{"cents":1}`, h("Rossby-Expect-Version", "x"), "400", "invalid", "", "Rossby-Expect-Version"},
		"bad timeout":   {"debit.a1", `{"cents":1}`, h("Rossby-Timeout", "soon"), "400", "invalid", "", "Rossby-Timeout"},
		"no timeout":    {"debit.a1", `{"cents":1}`, h("Rossby-Timeout", "0s"), "400", "invalid", "", "Rossby-Timeout"},
		"bad trigger":   {"debit.a1", `{"cents":1}`, h("Rossby-Trigger", "a b c"), "400", "invalid", "", "Rossby-Trigger"},
		"bad position":  {"debit.a1", `{"cents":1}`, h("Rossby-Trigger", "s e p x 1"), "400", "invalid", "", "position"},
		"bad time":      {"debit.a1", `{"cents":1}`, h("Rossby-Trigger", "s e p - x"), "400", "invalid", "", "time"},
		"bad metadata":  {"debit.a1", `{"cents":1}`, h("Rossby-Meta-a!b", "x"), "400", "invalid", "", "metadata key"},
		"bad id":        {"debit.a\x01", `{"cents":1}`, nil, "400", "invalid", "", "aggregate id"},
		"internal":      {"fail.a1", `{"kind":"plain"}`, nil, "500", "internal", "", "see the service's log"},
		"panic":         {"fail.a1", `{"kind":"panic"}`, nil, "500", "internal", "", "see the service's log"},
	} {
		m := request(t, nc, command+c.subject, c.body, c.header)
		code, kind, sub, reason := errorOf(t, m)
		if code != c.code || kind != c.kind || sub != c.sub || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %v %s", what, m.Header, m.Data)
		}
		description := m.Header.Get(micro.ErrorHeader)
		if want := kind + ": " + sub; sub != "" && description != want || sub == "" && description != kind {
			t.Errorf("%s: description %q", what, description)
		}
	}
	m := request(t, nc, command+"debit.a1", `{"cents":1}`, h("Rossby-Expect-Version", "7"))
	var b struct {
		Expected uint64 `json:"expected"`
		Actual   uint64 `json:"actual"`
	}
	if err := json.Unmarshal(m.Data, &b); err != nil || b.Expected != 7 || b.Actual != 2 {
		t.Error(b, err)
	}
	if _, err := nc.RequestWithContext(t.Context(), command+"unknown.a1", nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
}

func TestWireHeaders(t *testing.T) {
	t.Parallel()
	nc, _, repo, command := served(t, 100)
	header := h("Rossby-Command-Id", "id 2 ", "Rossby-Correlation", "conv", "Rossby-Causation", "cause", "Rossby-Meta-User", "u1",
		"Rossby-Expect-Version", "1", "Rossby-Timeout", "30s", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	first := ok(t, request(t, nc, command+"debit.a1", `{"cents":1}`, header))
	again := ok(t, request(t, nc, command+"debit.a1", `{"cents":1}`, header))
	if first.Duplicate || !again.Duplicate || again.Version != 2 || again.Position != first.Position || again.Events[0].ID != first.Events[0].ID {
		t.Fatalf("%+v %+v", first, again)
	}
	// Position, here none, and time in microseconds bound the search.
	header = h("Rossby-Trigger", fmt.Sprint("gate ", first.Events[0].ID, " step - ", time.Now().UnixMicro()))
	for i := range 2 {
		if r := ok(t, request(t, nc, command+"debit.a1", `{"cents":1}`, header)); r.Duplicate != (i == 1) || r.Version != 3 {
			t.Fatalf("%+v", r)
		}
	}
	header = h("Rossby-Trigger", fmt.Sprint("gate ", first.Events[0].ID, " refused ", first.Position, " ", time.Now().UnixMicro()))
	for range 2 {
		if code, kind, sub, _ := errorOf(t, request(t, nc, command+"debit.a1", `{"cents":1000}`, header)); code != "422" ||
			kind != "rejected" || sub != "insufficient-funds" {
			t.Fatal(code, kind, sub)
		}
		ok(t, request(t, nc, command+"credit.a1", `{"cents":1000}`, nil))
	}
	for e, err := range repo.History(t.Context(), "a1") {
		if err != nil {
			t.Fatal(err)
		}
		if e.Version == 2 && (e.Metadata["User"] != "u1" || e.Correlation != "conv" || e.Causation != "cause" || e.TraceParent[:3] != "00-") {
			t.Errorf("%+v", e.Meta)
		}
		if e.Version == 3 && e.Causation != first.Events[0].ID {
			t.Errorf("%+v", e.Meta)
		}
	}
}

// The errors that need more than a wrong request.
func TestWireTroubles(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	nc := natstest.Conn(t, srv.URL())
	e := newEars()
	deaf := natstest.Conn(t, srv.URL(), nats.SetCustomDialer(e))
	store := newStore(t, deaf, jetstream.Config{})
	entered, gate, open := make(chan int, 10), make(chan struct{}), make(chan struct{})
	close(open)
	repo, err := aggregate.NewRepository(store, newGated(entered, gate), aggregate.RepositoryConfig{MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	elsewhere := reopen(t, nc, store)
	other := repoOf(t, elsewhere, newGated(make(chan int, 10), open))
	must(t, other, "a", begin{})
	command := store.Name() + ".command.gated."
	request(t, nc, command+"enter.b", "{}", nil)
	replies := make(chan *nats.Msg, 1)
	send := func(header nats.Header) {
		go func() { replies <- request(t, nc, command+"pass.a", `{"n":1}`, header) }()
		received(t, entered)
	}

	send(nil)
	must(t, other, "a", pass{2}) // comes first
	gate <- struct{}{}
	if code, kind, sub, _ := errorOf(t, received(t, replies)); code != "429" || kind != "busy" || sub != "contended" {
		t.Error(code, kind, sub)
	}

	// The next attempt knows better, even where one is all there are.
	given := 150 * time.Millisecond
	var id string
	most := uint64(2) // is the version at most, when every command is stored whose outcome is not known
	natstest.Eventually(t, "the command goes out in its time", func() error {
		given, id = 2*given, jetstream.NewCommandID()
		most++
		for len(entered) > 0 { // of one that was given up
			<-entered
			gate <- struct{}{}
		}
		go func() {
			replies <- request(t, nc, command+"pass.a", `{"n":1}`, h("Rossby-Timeout", given.String(), "Rossby-Command-Id", id))
		}()
		select {
		case <-entered:
		case m := <-replies:
			return fmt.Errorf("it did not begin: %s", m.Data)
		}
		e.setDeaf(true) // it is stored, but the service does not hear of it
		defer e.setDeaf(false)
		gate <- struct{}{}
		code, kind, sub, reason := errorOf(t, received(t, replies))
		if code == "503" || strings.Contains(reason, "does not return") { // its time was over before
			return fmt.Errorf("%s %s: %s", code, kind, reason)
		}
		if code != "504" || kind != "unknown" || sub != "" {
			t.Error(code, kind, sub)
		}
		return nil
	})
	// Repeated, it is found.
	r := ok(t, request(t, nc, command+"pass.a", `{"n":1}`, h("Rossby-Command-Id", id)))
	if !r.Duplicate || r.Version < 3 || r.Version > most {
		t.Errorf("%+v, its version is %d at most", r, most)
	}

	big := repoOf(t, elsewhere, newNotes())
	must(t, big, "n1", begin{})
	run(t, newService(t, big, aggregate.ServiceConfig{}))
	body := fmt.Sprintf(`{"text":"x","times":%d}`, nc.MaxPayload())
	m := request(t, nc, store.Name()+".command.notes.shout.n1", body, h("Rossby-Meta-K", "v"))
	if code, kind, sub, _ := errorOf(t, m); code != "400" || kind != "invalid" || sub != "refused" {
		t.Error(code, kind, sub)
	}
	_, err = clientOf(t, nc, store.Name(), newNotes()).Execute(t.Context(), "n1", shout{"x", int(nc.MaxPayload())},
		aggregate.Metadata(map[string]string{"k": "v"}))
	wantAs[*jetstream.RefusedError](t, err)
}

// Ids that bear their time leave nothing behind, in either case of letters;
// others leave a receipt.
func TestWireCommandIDs(t *testing.T) {
	t.Parallel()
	nc, store, _, command := served(t, 100)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ulid := strings.TrimPrefix(jetstream.NewCommandID(), "cmd-")
	for i, id := range []string{"cmd-" + ulid, "cmd-" + strings.ToUpper(ulid), "any string"} {
		for again := range 2 {
			r := ok(t, request(t, nc, command+"debit.a1", `{"cents":1}`, h("Rossby-Command-Id", id)))
			if r.Duplicate != (again == 1) || r.Version != uint64(i+2) {
				t.Errorf("%s: %+v", id, r)
			}
		}
		_, err := js.KeyValue(t.Context(), store.Name()+"__receipts")
		if receipts := err == nil; receipts != (i == 2) {
			t.Errorf("%s: %v", id, err)
		}
	}
	// Other bytes with the same meaning are another body.
	m := request(t, nc, command+"debit.a1", `{"cents": 1}`, h("Rossby-Command-Id", "any string"))
	if code, _, sub, _ := errorOf(t, m); code != "409" || sub != "other-payload" {
		t.Errorf("%s", m.Data)
	}
}
