package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// keySuite are the promises of unique keys.
func keySuite() suite {
	return suite{
		"KeysAreUnique":      testKeysAreUnique,
		"KeysOfOneOfMany":    testKeysOfOneOfMany,
		"KeysMove":           testKeysMove,
		"KeysAndConflicts":   testKeysAndConflicts,
		"KeysTellNothing":    testKeysTellNothing,
		"KeysRefusedInput":   testKeysRefusedInput,
		"KeysUnknown":        testKeysUnknown,
		"KeysTakenMeanwhile": testKeysTakenMeanwhile,
		"KeysComeAndGo":      testKeysComeAndGo,
	}
}

func email(value string) jetstream.Key { return jetstream.Key{Name: "email", Value: value} }

func reserving(id string, after jetstream.Head, keys ...jetstream.Key) jetstream.Write {
	w := write(id, "", after)
	w.Reserve = keys
	return w
}

func releasing(id string, after jetstream.Head, keys ...jetstream.Key) jetstream.Write {
	w := write(id, "", after)
	w.Release = keys
	return w
}

// checkOwner expects an owner, or none for "".
func checkOwner(t *testing.T, s *jetstream.Store, k jetstream.Key, id string) {
	t.Helper()
	owner, err := s.Owner(t.Context(), k)
	if id == "" {
		if !errors.Is(err, jetstream.ErrNotFound) {
			t.Errorf("%v: %+v, %v", k, owner, err)
		}
		return
	}
	if err != nil || owner.Type != "account" || owner.ID != id || owner.Position.IsZero() {
		t.Errorf("%v: %+v, %v", k, owner, err)
	}
}

func testKeysAreUnique(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	ann := email("ann@example.org")
	checkOwner(t, s, ann, "")
	a1, err := s.Append(t.Context(), reserving("a1", jetstream.Head{}, ann, email("ann@example.com")))
	if err != nil {
		t.Fatal(err)
	}
	checkOwner(t, s, ann, "a1")
	checkOwner(t, s, email("Ann@example.org"), "")
	checkOwner(t, s, jetstream.Key{Name: "login", Value: "ann@example.org"}, "")

	// Another one is told, and nothing of its commit is stored.
	other := open(t, e.connect(t), jetstream.Config{Name: s.Name()})
	for _, w := range []jetstream.Write{reserving("a2", jetstream.Head{}, ann), releasing("a2", jetstream.Head{}, ann)} {
		_, err = other.Append(t.Context(), w)
		var taken *jetstream.KeyTakenError
		if !errors.As(err, &taken) || taken.Key != "email" || taken.Owner.ID != "a1" || taken.Owner.Type != "account" || taken.ID != "a2" ||
			strings.Contains(err.Error(), "ann@") {
			t.Errorf("%T %v", err, err)
		}
	}
	if _, err := s.Last(t.Context(), "account", "a2", jetstream.Leader); !errors.Is(err, jetstream.ErrNotFound) {
		t.Errorf("%v", err)
	}

	// The owner may take it again, and give it up; then others may.
	if a1, err = other.Append(t.Context(), reserving("a1", a1, ann)); err != nil {
		t.Error(err)
	}
	checkOwner(t, s, ann, "a1")
	for range 2 { // The second time it is free already.
		if a1, err = s.Append(t.Context(), releasing("a1", a1, ann)); err != nil {
			t.Error(err)
		}
		checkOwner(t, other, ann, "")
	}
	if _, err := other.Append(t.Context(), reserving("a2", jetstream.Head{}, ann)); err != nil {
		t.Error(err)
	}
	checkOwner(t, s, ann, "a2")
	checkOwner(t, s, email("ann@example.com"), "a1")
	if a1.Version != 4 {
		t.Errorf("%+v", a1)
	}
	if n := checkTransactions(t, s); n != 5 {
		t.Errorf("%d transactions", n)
	}
}

// testKeysOfOneOfMany: of those that want a key at once, one gets it.
func testKeysOfOneOfMany(t *testing.T, e env) {
	t.Helper()
	const writers = 16
	name := e.store(t, e.connect(t)).Name()
	var wg sync.WaitGroup
	won := make(chan string, writers)
	for i := range writers {
		mine := open(t, e.connect(t), jetstream.Config{Name: name})
		wg.Go(func() {
			id := fmt.Sprint("a", i)
			_, err := mine.Append(t.Context(), reserving(id, jetstream.Head{}, email("ann@example.org"), email(id)))
			switch {
			case err == nil:
				won <- id
			case !is[*jetstream.KeyTakenError](err):
				t.Errorf("%T %v", err, err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d got the key", len(won))
	}
	winner := <-won
	s := open(t, e.connect(t), jetstream.Config{Name: name})
	checkOwner(t, s, email("ann@example.org"), winner)
	for i := range writers {
		if id := fmt.Sprint("a", i); id != winner {
			checkOwner(t, s, email(id), "")
		}
	}
}

func testKeysMove(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	ann := email("ann")
	a1, err := s.Append(t.Context(), reserving("a1", jetstream.Head{}, ann))
	if err != nil {
		t.Fatal(err)
	}
	heads, err := s.AppendAll(t.Context(), reserving("a2", jetstream.Head{}, ann), releasing("a1", a1, ann))
	if err != nil {
		t.Fatal(err)
	}
	checkOwner(t, s, ann, "a2")
	// a1 has it no more, so it cannot pass it on.
	_, err = s.AppendAll(t.Context(), reserving("a3", jetstream.Head{}, ann), releasing("a1", heads[1], ann))
	if taken := (*jetstream.KeyTakenError)(nil); !errors.As(err, &taken) || taken.Owner.ID != "a2" {
		t.Errorf("%T %v", err, err)
	}
	checkOwner(t, s, ann, "a2")
}

// testKeysAndConflicts: the aggregate's own expectation counts as ever.
func testKeysAndConflicts(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	appendN(t, s, "a1", 2)
	_, err := s.Append(t.Context(), reserving("a1", jetstream.Head{}, email("ann")))
	if conflict := (*jetstream.ConflictError)(nil); !errors.As(err, &conflict) || conflict.ID != "a1" || conflict.Type != "account" {
		t.Errorf("%T %v", err, err)
	}
	checkOwner(t, s, email("ann"), "")
	w := reserving("a1", jetstream.Head{}, email("ann"))
	w.Expect = jetstream.AtVersion(2)
	if head, err := s.Append(t.Context(), w); err != nil || head.Version != 3 {
		t.Errorf("%+v, %v", head, err)
	}
	checkOwner(t, s, email("ann"), "a1")
}

// testKeysTellNothing: neither subject nor header nor payload holds the value, and
// another store hashes it to something else.
func testKeysTellNothing(t *testing.T, e env) {
	t.Helper()
	const value = "somebody@example.org"
	var subjects []string
	for range 2 {
		s := e.store(t, e.connect(t))
		if _, err := s.Append(t.Context(), reserving("a1", jetstream.Head{}, email(value))); err != nil {
			t.Fatal(err)
		}
		raw := stream(t, s.Conn(), s.Name())
		for seq := uint64(1); seq <= 4; seq++ {
			var m *natsjs.RawStreamMsg // of any replica, which may not have it yet
			got := natstest.Retry(t, "message", func(ctx context.Context) (err error) {
				m, err = raw.GetMsg(ctx, seq)
				return err
			})
			if !got {
				t.FailNow()
			}
			if all := fmt.Sprint(m.Subject, m.Header, string(m.Data)); strings.Contains(all, "somebody") {
				t.Errorf("%q", all)
			}
			if strings.Contains(m.Subject, "._key.") {
				subjects = append(subjects, m.Subject[strings.LastIndex(m.Subject, "."):])
			}
		}
	}
	if len(subjects) != 2 || len(subjects[0]) != 33 || subjects[0] == subjects[1] {
		t.Errorf("%q", subjects)
	}
}

func testKeysRefusedInput(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	twice := reserving("a1", jetstream.Head{}, email("ann"))
	twice.Release = []jetstream.Key{email("ann")}
	many := make([]jetstream.Key, jetstream.MaxTransaction)
	for i := range many {
		many[i] = email(strconv.Itoa(i))
	}
	for name, writes := range map[string][]jetstream.Write{
		"no name":             {reserving("a1", jetstream.Head{}, jetstream.Key{Value: "x"})},
		"bad name":            {reserving("a1", jetstream.Head{}, jetstream.Key{Name: "E Mail", Value: "x"})},
		"no value":            {reserving("a1", jetstream.Head{}, email(""))},
		"long value":          {reserving("a1", jetstream.Head{}, email(strings.Repeat("x", 5000)))},
		"twice":               {reserving("a1", jetstream.Head{}, email("ann"), email("ann"))},
		"taken and given up":  {twice},
		"taken by two":        {reserving("a1", jetstream.Head{}, email("ann")), reserving("a2", jetstream.Head{}, email("ann"))},
		"given up by two":     {releasing("a1", jetstream.Head{}, email("ann")), releasing("a2", jetstream.Head{}, email("ann"))},
		"more than one batch": {reserving("a1", jetstream.Head{}, many...)},
	} {
		_, err := s.AppendAll(t.Context(), writes...)
		if !is[*jetstream.InvalidError](err) {
			t.Errorf("%s: %T %v", name, err, err)
		}
		if len(writes) == 1 {
			if _, err := s.Append(t.Context(), writes[0]); !is[*jetstream.InvalidError](err) {
				t.Errorf("%s: %T %v", name, err, err)
			}
		}
	}
	if _, err := s.Owner(t.Context(), jetstream.Key{}); !is[*jetstream.InvalidError](err) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)
	// Any byte may stand in a value.
	odd := email("\x00 .*>\xff\n")
	if _, err := s.Append(t.Context(), reserving("a1", jetstream.Head{}, odd)); err != nil {
		t.Error(err)
	}
	checkOwner(t, s, odd, "a1")
}

// testKeysUnknown: an unknown outcome with keys is settled like any other.
func testKeysUnknown(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	ann := email("ann")
	// The store's secret is there already, and the proxied store knows it.
	first, err := s.Append(t.Context(), reserving("a0", jetstream.Head{}, email("other")))
	if err != nil {
		t.Fatal(err)
	}
	p, through := e.proxied(t, s)
	checkOwner(t, through, email("other"), "a0")
	u := loseAfterReads(t, p, through, reserving("a1", jetstream.Head{}, ann))
	// Another one takes the key meanwhile.
	if _, err := s.Append(t.Context(), reserving("a0", first, ann)); err != nil {
		t.Fatal(err)
	}
	_, err = through.Settle(t.Context(), u)
	if taken := (*jetstream.KeyTakenError)(nil); !errors.As(err, &taken) || taken.Owner.ID != "a0" || taken.Key != "email" || taken.ID != "a1" {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)

	u = loseAfterReads(t, p, through, reserving("a1", jetstream.Head{}, email("bob")))
	if _, err := through.Settle(t.Context(), u); err != nil {
		t.Error(err)
	}
	checkOwner(t, s, email("bob"), "a1")
	waitFor(t, s, 1)
}

// loseAfterReads appends with a server that answers reads and takes no publishes.
func loseAfterReads(t *testing.T, p *proxy, s *jetstream.Store, w jetstream.Write) *jetstream.UnknownError {
	t.Helper()
	p.losePublishes.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := started(ctx, s, w)
	p.awaitLoss(t)
	cancel()
	_, err := (<-done)()
	var u *jetstream.UnknownError
	if !errors.As(err, &u) {
		t.Fatalf("%T %v", err, err)
	}
	p.heal()
	return u
}

// testKeysTakenMeanwhile: a key that is taken and given up between the store's
// look and its write is looked at again.
func testKeysTakenMeanwhile(t *testing.T, e env) {
	t.Helper()
	const rounds = 6
	s := e.store(t, e.connect(t))
	var wg sync.WaitGroup
	for i := range 3 {
		id := fmt.Sprint("a", i)
		mine := open(t, e.connect(t), jetstream.Config{Name: s.Name()})
		wg.Go(func() {
			var head jetstream.Head
			for taken := 0; taken < rounds; {
				next, err := mine.Append(t.Context(), reserving(id, head, email("hot")))
				if is[*jetstream.KeyTakenError](err) {
					continue
				}
				if err == nil {
					taken++
					next, err = mine.Append(t.Context(), releasing(id, next, email("hot")))
				}
				if err != nil {
					t.Errorf("%s: %T %v", id, err, err)
					return
				}
				head = next
			}
		})
	}
	wg.Wait()
	checkOwner(t, s, email("hot"), "")
	// Whoever took it was the only one until it gave it up.
	var owner string
	var seen []string
	for _, c := range scan(t, s) {
		if c.Type != "_key" {
			continue
		}
		last := c.Tx
		if last == nil || last.Index != 1 || last.Count != 2 {
			t.Errorf("%+v", c)
		}
		name := c.EventNames[len(c.EventNames)-1]
		seen = append(seen, name)
		switch {
		case name == "reserved" && owner == "", name == "released" && owner != "":
		default:
			t.Fatalf("%v after owner %q", seen, owner)
		}
		if owner = ""; name == "reserved" {
			owner = "somebody"
		}
	}
	if n := len(slices.DeleteFunc(seen, func(n string) bool { return n == "released" })); n != 3*rounds {
		t.Errorf("%d reservations", n)
	}
}

// testKeysComeAndGo: the secret is made once, however many want it first.
func testKeysComeAndGo(t *testing.T, e env) {
	t.Helper()
	const writers = 8
	name := e.store(t, e.connect(t)).Name()
	var wg sync.WaitGroup
	for i := range writers {
		mine := open(t, e.connect(t), jetstream.Config{Name: name})
		wg.Go(func() {
			if _, err := mine.Append(t.Context(), reserving(fmt.Sprint("a", i), jetstream.Head{}, email(strconv.Itoa(i)))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := open(t, e.connect(t), jetstream.Config{Name: name})
	secrets := 0
	for _, c := range scan(t, s) {
		if c.Type == "_store" {
			secrets++
		}
	}
	if secrets != 1 {
		t.Errorf("%d secrets", secrets)
	}
	for i := range writers {
		checkOwner(t, s, email(strconv.Itoa(i)), fmt.Sprint("a", i))
	}
}

// TestGoldenKeys: what is written of keys is what the golden files say.
func TestGoldenKeys(t *testing.T) {
	t.Parallel()
	if id := jetstream.HashKey(goldenSecret(), email("ann@example.org")); id != goldenKeyID {
		t.Errorf("the key's id is %s", id)
	}
	s := open(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{Name: "bank"})
	customer := func(id string, w jetstream.Write) jetstream.Write {
		w.Type, w.ID = "customer", id
		return w
	}
	ann := email("ann@example.org")
	c1, err := s.Append(t.Context(), customer("c1", reserving("", jetstream.Head{}, ann)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AppendAll(t.Context(), customer("c2", reserving("", jetstream.Head{}, ann)), customer("c1", releasing("", c1, ann)))
	if err != nil {
		t.Fatal(err)
	}
	commits := scan(t, s)
	for i, name := range []string{"secret", "key-reserved", "", "key-moved"} {
		if name == "" {
			continue
		}
		got, want := commits[i], ownGoldens()[name].commit
		if got.Type != want.Type || !slices.Equal(got.EventNames, want.EventNames) || got.Ordinal != want.Ordinal || got.Version != want.Version {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if got.Tx == nil != (want.Tx == nil) || got.Tx != nil && (got.Tx.Index != want.Tx.Index || got.Tx.Count != want.Tx.Count) {
			t.Errorf("%s: %+v", name, got.Tx)
		}
		for k, e := range got.Decisions[0].Events {
			data := want.Decisions[0].Events[k].Data
			if name == "secret" {
				e.Data, data = e.Data[:10], data[:10]
			}
			if !slices.Equal(e.Data, data) {
				t.Errorf("%s: event %d is %q, want %q", name, k, e.Data, data)
			}
		}
		// The commit of the aggregate is what caused the key's.
		if last := commits[i+max(0, int(got.LastSequence()-got.Sequence))]; name == "key-reserved" && got.Decisions[0].Causation != last.CommitID {
			t.Errorf("%s: caused by %s", name, got.Decisions[0].Causation)
		}
	}
}
