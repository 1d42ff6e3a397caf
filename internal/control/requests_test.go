package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/control"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// owner runs a follower of nothing, with its administration, until the test or end ends it.
func owner(t *testing.T, details func() any) (store *jetstream.Store, end func()) {
	t.Helper()
	store, err := jetstream.Open(t.Context(), natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := follow.New(follow.Config{
		Conn: store.Conn(), Stream: store.Name(), Bucket: store.Name() + "__followers", Name: "f",
		TTL:    time.Minute, // more than any machine stands still
		Start:  func(context.Context) (uint64, error) { return 0, nil },
		Handle: func(context.Context, follow.Delivery) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- control.Run(ctx, control.Config{
			Store: store, Follower: f, Name: "f", Kind: "reactor", Details: details, Logger: slog.New(slog.DiscardHandler),
		})
	}()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	natstest.Eventually(t, "it owns the record", func() error {
		if !f.Owns(t.Context()) {
			return fmt.Errorf("%+v", f.Status())
		}
		return nil
	})
	return store, end
}

// However long a status takes, those who ask for it do not wait for one another: all
// get the next one. Who has gone gets none. The owner of much on a busy machine
// answered requests whose askers had asked again meanwhile, and never caught up.
func TestRequestsOfStatusDoNotPileUp(t *testing.T) {
	t.Parallel()
	var made atomic.Int64
	begun, release := make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo() // or the follower would not end
	store, _ := owner(t, func() any {
		if made.Add(1) == 1 {
			close(begun)
		}
		<-release
		return nil
	})
	nc := natstest.Conn(t, store.Conn().ConnectedUrl())
	listen := func() *nats.Subscription {
		sub, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	ask := func(answers *nats.Subscription, timeout string) {
		msg := &nats.Msg{Subject: followers.Subject(store.Name(), "f", followers.DoStatus), Reply: answers.Subject}
		if timeout != "" {
			msg.Header = nats.Header{"Rossby-Timeout": {timeout}}
		}
		if err := nc.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	answers, gone := listen(), listen()
	ask(answers, "")
	<-begun
	const more = 300 // more than may wait
	ask(gone, "1ns")
	for range more {
		ask(answers, "1h")
	}
	natstest.Eventually(t, "all requests have come", func() error {
		var stats micro.Stats
		m, err := nc.Request("$SRV.STATS."+store.Name()+"-follower-f", nil, natstest.Patience)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(m.Data, &stats); err != nil {
			return err
		}
		for _, e := range stats.Endpoints {
			if e.Name == followers.DoStatus && e.NumRequests == more+2 {
				return nil
			}
		}
		return fmt.Errorf("%s", m.Data)
	})
	letGo()
	busy := 0
	for range more + 1 {
		m, err := answers.NextMsg(natstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		var s followers.Status
		if strings.Contains(string(m.Data), "too many requests") {
			busy++
		} else if err := json.Unmarshal(m.Data, &s); err != nil || s.Kind != "reactor" {
			t.Fatalf("%q %v", m.Data, err)
		}
	}
	if n := made.Load(); n != 2 {
		t.Errorf("%d statuses were made, want the first one and one for all that waited", n)
	}
	if busy == 0 || busy > more/2 {
		t.Errorf("%d of %d were turned away", busy, more)
	}
	if n, _, err := gone.Pending(); n != 0 || err != nil {
		t.Errorf("who waits no more got %d answers, %v", n, err)
	}
}

// Who hears nothing asks again, and the owner may have done it, or be about to: it is
// done once, and does not undo what others asked for meanwhile.
func TestActionsAskedForAgain(t *testing.T) {
	t.Parallel()
	store, _ := owner(t, nil)
	admin := followers.New(store)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	ask := func(do, id string) {
		t.Helper()
		natstest.Eventually(t, do, func() error {
			m, err := store.Conn().Request(followers.Subject(store.Name(), "f", do), fmt.Appendf(nil, `{"id":%q,"by":"ada"}`, id), natstest.Patience)
			if err == nil && m.Header.Get(micro.ErrorCodeHeader) != "" {
				err = fmt.Errorf("%s", m.Data)
			}
			return err
		})
	}
	ask(followers.DoPause, "one")
	ask(followers.DoResume, "two")
	count := func() (n int) {
		t.Helper()
		for _, err := range admin.Actions(ctx, "f") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	before := count()
	ask(followers.DoPause, "one")
	ask(followers.DoPause, "one")
	s, err := admin.Status(ctx, "f")
	if err != nil || s.State != "active" || s.Kind == "" {
		t.Errorf("%+v %v", s, err)
	}
	if after := count(); before < 2 || after != before {
		t.Errorf("%d actions, then %d", before, after)
	}
	ask(followers.DoPause, "three")
	if s, err := admin.Status(ctx, "f"); err != nil || s.State != "paused" {
		t.Errorf("%+v %v", s, err)
	}
	m := &nats.Msg{
		Subject: followers.Subject(store.Name(), "f", followers.DoResume), Header: nats.Header{"Rossby-Timeout": {"soon"}},
	}
	if m, err := store.Conn().RequestMsg(m, natstest.Patience); err != nil || !strings.Contains(string(m.Data), "Rossby-Timeout") {
		t.Errorf("%v %v", m, err)
	}
}

// An owner that ends with an action half done says nothing: the next one is asked again.
// What it said was an internal error, which ended the asking.
func TestActionsOfAnOwnerThatEnds(t *testing.T) {
	t.Parallel()
	store, end := owner(t, nil)
	name := store.Name()
	natstest.CreateStream(t, store.Conn(), natsjs.StreamConfig{ // which takes actions, and does not say so
		Name: followers.ActionStream(name), Subjects: []string{followers.ActionSubject(name, ">")}, NoAck: true,
	})
	nc := natstest.Conn(t, store.Conn().ConnectedUrl())
	listen := func(subject string) *nats.Subscription {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	begun, answer := listen(followers.ActionSubject(name, ">")), listen(nc.NewInbox())
	if err := nc.PublishRequest(followers.Subject(name, "f", followers.DoPause), answer.Subject, []byte(`{"by":"ada"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := begun.NextMsg(natstest.Patience); err != nil {
		t.Fatal(err)
	}
	end()
	for _, conn := range []*nats.Conn{store.Conn(), nc} {
		if err := conn.FlushTimeout(natstest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	// On a machine that stands still the action's own time may be over before.
	if m, err := answer.NextMsg(time.Nanosecond); err == nil && !strings.Contains(string(m.Data), `"unknown"`) {
		t.Errorf("it is answered: %v %s", m.Header, m.Data)
	}
}
