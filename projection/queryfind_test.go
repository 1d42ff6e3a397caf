package projection_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// queried are searches through a query service.
func queried(t *testing.T, c *projection.QueryClient[account], index string, o projection.FindOptions) []found {
	t.Helper()
	out := []found{}
	for e, err := range c.Find(patient(t), index, o) {
		if err != nil {
			t.Fatalf("find %s %+v: %v", index, o, err)
		}
		out = append(out, found{e.Indexed, e.Key, e.Value})
	}
	return out
}

// TestQueryFind: a query client finds what a reader finds, in the same order, at
// once and page by page, and is refused what a reader is refused.
func TestQueryFind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const n = 150
	for i := range n {
		f.append(id(i), opened{Owner: "o" + strconv.Itoa(i%3) + ".ü*"}, credited{Cents: int64(i%20 - 10)})
	}
	start(t, f.store, indexed(), quiet())
	r := reader[account](t, f, "accounts")
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()
	c := projection.NewQueryClient[account](natstest.Conn(t, f.url), f.store.Name(), "accounts")
	for _, o := range []projection.FindOptions{
		{AtLeast: f.last}, {Reverse: true}, {Limit: 7}, {Limit: 130, Reverse: true},
		{From: projection.IntValue(-3), Before: projection.IntValue(4)}, {Prefix: "n"}, {Value: projection.IntValue(5)}, {Value: "none"},
	} {
		want := find(t, r, "cents", o)
		if got := queried(t, c, "cents", o); !reflect.DeepEqual(got, want) || o.Value != "none" && len(got) == 0 {
			t.Errorf("%+v: %v, wanted %v", o, got, want)
		}
	}
	if got := queried(t, c, "owner", projection.FindOptions{Value: "o1.ü*"}); len(got) != n/3 || got[0].account.Owner != "o1.ü*" {
		t.Errorf("%d entries: %v", len(got), got)
	}
	// Its tokens are a reader's.
	for e, err := range c.Find(patient(t), "cents", projection.FindOptions{Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		rest := queried(t, c, "cents", projection.FindOptions{After: e.Token()})
		if want := find(t, r, "cents", projection.FindOptions{After: e.Token()}); len(rest) != n-1 || !reflect.DeepEqual(rest, want) {
			t.Errorf("%d after the first, wanted %d", len(rest), len(want))
		}
	}
	refused := func(index string, o projection.FindOptions) error {
		for _, err := range c.Find(patient(t), index, o) {
			return err
		}
		return nil
	}
	if err := refused("colour", projection.FindOptions{}); !errors.Is(err, projection.ErrIndex) || errors.Is(err, projection.ErrNotFound) {
		t.Errorf("no such index: %v", err)
	}
	for _, err := range []error{
		refused("Owner", projection.FindOptions{}), refused("owner", projection.FindOptions{Limit: -1}),
		refused("owner", projection.FindOptions{After: "1-2"}),
	} {
		if _, ok := errors.AsType[*jetstream.InvalidError](err); !ok {
			t.Errorf("not refused: %v", err)
		}
	}
	foreign, _ := jetstream.ParsePosition("elsewhere-7")
	var fe *jetstream.ForeignPositionError
	if err := refused("owner", projection.FindOptions{AtLeast: foreign}); !errors.As(err, &fe) {
		t.Errorf("foreign: %v", err)
	}
}

// TestQueryFindFromAnyClient: the subject, the JSON and the codes as docs/queries.md
// has them, without a line of this package on the client's side.
func TestQueryFindFromAnyClient(t *testing.T) {
	t.Parallel()
	url, as := roles(t, nil, nil, 64<<10)
	nc := natstest.Conn(t, url, as("all"))
	f := fixtureOn(t, nc)
	for i := range 20 {
		f.append(id(i), opened{Owner: "<" + strings.Repeat("x", 5000) + ">"}, credited{Cents: int64(i)})
	}
	start(t, f.store, accounts().Index("cents", byCents), quiet())
	r := reader[account](t, f, "accounts")
	q, err := projection.NewQueryService(nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()
	ask := func(body string, headers ...string) *nats.Msg {
		t.Helper()
		m, err := nc.RequestMsg(natsMsg("bank.query.accounts.find", body, headers...), natstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	// A page is as long as the server takes; each says where the next begins.
	keys, after, pages := []string{}, "", 0
	for more := true; more && pages < 100; pages++ {
		body, err := json.Marshal(map[string]any{"index": "cents", "reverse": true, "from": projection.IntValue(5), "after": after})
		if err != nil {
			t.Fatal(err)
		}
		m := ask(string(body), projection.HeaderAfter, f.last.String())
		var reply struct {
			Entries []struct {
				Key      string  `json:"key"`
				Indexed  string  `json:"indexed"`
				Token    string  `json:"token"`
				Position string  `json:"position"`
				Value    account `json:"value"`
				Sequence uint64  `json:"sequence"`
				Revision uint64  `json:"revision"`
			} `json:"entries"`
			Next string `json:"next"`
		}
		if err := json.Unmarshal(m.Data, &reply); err != nil || len(reply.Entries) == 0 {
			t.Fatalf("%s %v: %v", m.Data, m.Header, err)
		}
		for _, e := range reply.Entries {
			keys = append(keys, e.Key)
			if e.Indexed != projection.IntValue(e.Value.Cents) || e.Token == "" || e.Position != f.last.String() || e.Sequence == 0 || e.Revision == 0 {
				t.Errorf("%+v", e)
			}
		}
		after, more = reply.Next, reply.Next != ""
	}
	want := []string{}
	for i := 19; i >= 5; i-- {
		want = append(want, id(i))
	}
	if !reflect.DeepEqual(keys, want) || pages < 2 {
		t.Errorf("%d pages: %q", pages, keys)
	}
	for body, code := range map[string]string{
		`{"index":"colour"}`:               projection.CodeNotFound,
		`{"index":"Cents"}`:                projection.CodeInvalid,
		`{}`:                               projection.CodeInvalid,
		``:                                 projection.CodeInvalid,
		`{"index":"cents","valu":"x"}`:     projection.CodeInvalid,
		`{"index":"cents"} {}`:             projection.CodeInvalid,
		`{"index":"cents","after":"what"}`: projection.CodeInvalid,
	} {
		if m := ask(body); m.Header.Get("Nats-Service-Error-Code") != code || m.Header.Get("Nats-Service-Error") == "" {
			t.Errorf("%s: %s %v", body, m.Data, m.Header)
		}
	}
}
