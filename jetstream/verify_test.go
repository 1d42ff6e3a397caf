package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// editable is a store whose stream lets messages be deleted.
func editable(t *testing.T, nc *nats.Conn, replicas int) *jetstream.Store {
	t.Helper()
	cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: natstest.Name(t)})
	cfg.DenyDelete, cfg.DenyPurge, cfg.Replicas = false, false, replicas
	natstest.CreateStream(t, nc, cfg)
	id := cfg.Metadata["rossby.store"]
	genesis := wire.Expect(nats.NewMsg(cfg.Name+".event._store.0.genesis"), 0)
	genesis.Data = []byte(`{"store":"` + id + `","format":1,"partitions":64,"codec":"msgpack"}`)
	once(t, func(ctx context.Context) error { return second(wire.Publish(ctx, nc, genesis)) })
	return jetstream.NewStoreForTest(cfg.Name, id, jetstream.PartitionsDefault).WithConn(nc).
		Attempts(jetstream.AttemptTimeoutDefault)
}

// once publishes until it is stored: what expects nothing on its subject is not stored
// a second time.
func once(t *testing.T, publish func(context.Context) error) {
	t.Helper()
	stored := natstest.Retry(t, "stored", func(ctx context.Context) error {
		if err := publish(ctx); err != nil && !wire.IsWrongLastSequence(err) {
			return err
		}
		return nil
	})
	if !stored {
		t.FailNow()
	}
}

// verified collects what a verification finds, but for settings that a test has
// chosen.
func verified(t *testing.T, s *jetstream.Store, v jetstream.Verification) []*jetstream.DamageError {
	t.Helper()
	return findings(t, s.Verify(t.Context(), v))
}

func findings(t *testing.T, seq iter.Seq2[*jetstream.DamageError, error]) (all []*jetstream.DamageError) {
	t.Helper()
	for d, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind == jetstream.DamageSettings && strings.Contains(d.Detail, "deny_") {
			continue
		}
		if d.Detail == "" || !errors.Is(d, jetstream.ErrDamaged) {
			t.Errorf("%+v", d)
		}
		all = append(all, d)
	}
	return all
}

// found tells what was found in short: kind, sequence, and id of the aggregate.
func found(all []*jetstream.DamageError) string {
	out := make([]string, 0, len(all))
	for _, d := range all {
		text := fmt.Sprintf("%s %d", d.Kind, d.Sequence)
		if d.Through > d.Sequence {
			text += fmt.Sprint("-", d.Through)
		}
		if i := strings.LastIndexByte(d.Subject, '.'); i >= 0 {
			text += " " + d.Subject[i+1:]
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func wantFound(t *testing.T, s *jetstream.Store, v jetstream.Verification, want string) {
	t.Helper()
	all := verified(t, s, v)
	if got := found(all); got != want {
		t.Errorf("%+v: found %q, want %q", v, got, want)
		for _, d := range all {
			t.Log(d)
		}
	}
}

// publish stores a message past the store.
func publish(t *testing.T, nc *nats.Conn, m *nats.Msg) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	ack, err := wire.Publish(ctx, nc, m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// copied is a message of the store as somebody would publish it anew.
func copied(t *testing.T, s *jetstream.Store, seq uint64, subject string) *nats.Msg {
	t.Helper()
	m, err := wire.LeaderAt(t.Context(), s.Conn(), s.Name(), seq)
	if err != nil {
		t.Fatal(err)
	}
	h := maps.Clone(m.Header)
	maps.DeleteFunc(h, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") })
	return &nats.Msg{Subject: subject, Header: h, Data: m.Data}
}

func TestVerifyASoundStore(t *testing.T) {
	t.Parallel()
	three := open(t, natstest.RunCluster(t).Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3})
	for s, n := range map[*jetstream.Store]int{newStore(t): 600, three: unlessShort(600, 100)} {
		if all := verified(t, s, jetstream.Verification{}); len(all) > 0 {
			t.Errorf("a new store: %v", all)
		}
		r := newRanged(t, s, n)
		transaction(t, s, 3, "x", "y", "z")
		var told []jetstream.Verified
		v := jetstream.Verification{Progress: func(p jetstream.Verified) { told = append(told, p) }}
		wantFound(t, s, v, "")
		commits := 2*uint64(n) + 3
		last := told[len(told)-1]
		if last != (jetstream.Verified{Sequence: commits + 1, Last: commits + 1, Commits: commits, Aggregates: 7}) || len(told) != 1+int(commits/1000) {
			t.Errorf("told %+v", told)
		}
		wantFound(t, s, jetstream.Verification{After: r.commits[n/2].Sequence}, "")
		wantFound(t, s, jetstream.Verification{After: last.Last - 1}, "") // within the transaction
		wantFound(t, s, jetstream.Verification{After: last.Last}, "")
		wantFound(t, s, jetstream.Verification{Type: "account", ID: "a1"}, "")
		wantFound(t, s, jetstream.Verification{Type: "account", ID: "y"}, "")
		wantFound(t, s, jetstream.Verification{Type: "account", ID: "nobody"}, "")
		wantFound(t, s, jetstream.Verification{Sample: 20}, "")
		for _, err := range s.Verify(t.Context(), jetstream.Verification{After: last.Last + 5}) {
			if !errors.Is(err, jetstream.ErrStoreWentBack) {
				t.Error(err)
			}
		}
	}
}

// transaction stores the first commits of new aggregates in one batch, but only so
// many of them.
func transaction(t *testing.T, s *jetstream.Store, stored int, ids ...string) {
	t.Helper()
	msgs := make([]*nats.Msg, 0, len(ids))
	for i, id := range ids {
		subject, err := s.Subject("account", id)
		if err != nil {
			t.Fatal(err)
		}
		m, err := jetstream.EncodeCommit(subject, &jetstream.Commit{
			Head:       jetstream.Head{CommitID: jetstream.NewID(), Ordinal: 1, Version: 1},
			EventNames: []string{"credited"}, Decisions: []jetstream.Decision{command("", event("credited", "\xc0"))},
			Tx: &jetstream.Tx{ID: "tx-" + ids[0], Index: i + 1, Count: len(ids)},
		}, jetstream.Msgpack)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	once(t, func(ctx context.Context) error { return second(wire.PublishBatch(ctx, s.Conn(), msgs[:stored])) })
}

// TestVerifyFindsForgeries: what somebody publishes past Rossby.
func TestVerifyFindsForgeries(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	link := func(heads []jetstream.Head, ordinal uint64, previous string) jetstream.Commit {
		return jetstream.Commit{
			Head:     jetstream.Head{CommitID: jetstream.NewID(), Ordinal: ordinal, Version: ordinal},
			Previous: previous, PreviousSequence: heads[len(heads)-1].Sequence,
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, s *jetstream.Store, heads []jetstream.Head)
		// want of the whole store, one of its aggregate a1: the first five commits are
		// a1's, at 2 to 6.
		want, one string
	}{
		"a foreign commit id": {
			damage: func(t *testing.T, s *jetstream.Store, heads []jetstream.Head) {
				t.Helper()
				forge(t, s, "a1", link(heads, 6, "somebodys"))
				appendN(t, s, "b", 2)
			},
			want: "chain 7 a1", one: "chain 7 a1",
		},
		"another ordinal": {
			damage: func(t *testing.T, s *jetstream.Store, heads []jetstream.Head) {
				t.Helper()
				forge(t, s, "a1", link(heads, 8, heads[4].CommitID))
			},
			want: "chain 7 a1", one: "chain 7 a1",
		},
		"another version": {
			damage: func(t *testing.T, s *jetstream.Store, heads []jetstream.Head) {
				t.Helper()
				c := link(heads, 6, heads[4].CommitID)
				c.Version = 7
				forge(t, s, "a1", c)
			},
			want: "chain 7 a1", one: "chain 7 a1",
		},
		"a second first commit": {
			damage: func(t *testing.T, s *jetstream.Store, heads []jetstream.Head) {
				t.Helper()
				c := link(heads, 1, "")
				c.PreviousSequence = heads[4].Sequence
				forge(t, s, "a1", c)
			},
			want: "chain 7 a1", one: "chain 7 a1",
		},
		"no first commit": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				forge(t, s, "c", jetstream.Commit{Head: jetstream.Head{CommitID: "x", Ordinal: 2, Version: 2}, Previous: "w"})
			},
			want: "chain 7 c",
		},
		"commits once more, in another order": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				subject, _ := s.Subject("account", "a1")
				for _, seq := range []uint64{3, 2, 4} {
					publish(t, s.Conn(), copied(t, s, seq, subject))
				}
			},
			want: "chain 7 a1, chain 8 a1, chain 9 a1", one: "chain 7 a1, chain 8 a1, chain 9 a1",
		},
		"an aggregate under another id": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				subject, _ := s.Subject("account", "copy")
				before := uint64(0)
				for seq := range uint64(3) {
					before = publish(t, s.Conn(), wire.Expect(copied(t, s, seq+2, subject), before))
				}
			},
			want: "copy 7 copy",
		},
		"another partition": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				publish(t, s.Conn(), copied(t, s, 2, s.Name()+".event.account.7.elsewhere"))
			},
			want: "partition 7 elsewhere, copy 7 elsewhere",
		},
		"garbage": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				subject, _ := s.Subject("account", "a1")
				publish(t, s.Conn(), &nats.Msg{Subject: subject, Data: []byte("garbage")})
				publish(t, s.Conn(), &nats.Msg{Subject: s.Name() + ".event.what"})
			},
			want: "unreadable 7 a1, unreadable 8 what", one: "unreadable 7 a1",
		},
		"a payload cut short": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				subject, _ := s.Subject("account", "a1")
				m := copied(t, s, 6, subject)
				m.Data = m.Data[:len(m.Data)-1]
				publish(t, s.Conn(), m)
			},
			want: "unreadable 7 a1", one: "unreadable 7 a1",
		},
		"a second genesis": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				publish(t, s.Conn(), copied(t, s, 1, s.Name()+".event._store.0.genesis"))
			},
			want: "genesis 7 genesis",
		},
		"half a transaction": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				transaction(t, s, 2, "x", "y", "z")
				appendN(t, s, "b", 1)
				transaction(t, s, 1, "u", "v")
			},
			want: "transaction 9, transaction 11",
		},
		"a transaction's commit alone": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				transaction(t, s, 2, "x", "y")
				m := copied(t, s, 8, "")
				m.Subject, _ = s.Subject("account", "w")
				m.Header["Rossby-Commit"] = []string{"other"}
				publish(t, s.Conn(), wire.Expect(m, 0))
			},
			want: "transaction 9 w",
		},
		"a first commit that expects nothing": {
			damage: func(t *testing.T, s *jetstream.Store, _ []jetstream.Head) {
				t.Helper()
				subject, _ := s.Subject("account", "w")
				m := copied(t, s, 2, subject)
				m.Header["Rossby-Commit"] = []string{"other"}
				at := publish(t, s.Conn(), m)
				if _, err := s.Append(t.Context(), write("w", "", jetstream.Head{
					Sequence: at, CommitID: "other", Ordinal: 1, Version: 1,
				})); err != nil {
					t.Fatal(err)
				}
				if commits, err := history(t.Context(), s, "w", jetstream.Range{}); !errors.Is(err, jetstream.ErrDamaged) || commits != nil {
					t.Errorf("its history: %d commits, %v", len(commits), err)
				}
				wantFound(t, s, jetstream.Verification{Type: "account", ID: "w"}, "chain 7 w")
			},
			want: "chain 7 w",
		},
		"events of no schema": {
			damage: func(t *testing.T, s *jetstream.Store, heads []jetstream.Head) {
				t.Helper()
				w := write("a1", "", heads[4])
				w.Decisions[0].Events = []jetstream.EventData{
					event("credited", "\x81\xa1c\x05"), event("unheard-of", "\x80"), event("credited", "\xa1x"),
				}
				if _, err := s.Append(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			},
			want: "event 7 a1, event 7 a1", one: "event 7 a1, event 7 a1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, nc, jetstream.Config{Name: natstest.Name(t)})
			heads := appendN(t, s, "a1", 5)
			c.damage(t, s, heads)
			type credited struct {
				C int `json:"c"`
			}
			schemas := []*jetstream.Schema{jetstream.NewSchema("account", jetstream.Event[credited]("credited"))}
			if name != "events of no schema" {
				schemas = nil
			}
			wantFound(t, s, jetstream.Verification{Schemas: schemas}, c.want)
			wantFound(t, s, jetstream.Verification{Type: "account", ID: "a1", Schemas: schemas}, c.one)
			// A caller that has enough is not told more.
			for _, err := range s.Verify(t.Context(), jetstream.Verification{Schemas: schemas}) {
				if err != nil {
					t.Error(err)
				}
				break
			}
		})
	}
}

// TestVerifyFindsWhatAnAdministratorDid: streams edited behind Rossby's back, on one
// server and on three. Reads say so, too, and append loses nothing more.
func TestVerifyFindsWhatAnAdministratorDid(t *testing.T) {
	t.Parallel()
	one, three := natstest.Conn(t, natstest.Run(t).URL()), natstest.RunCluster(t).Conn(t)
	purge := func(t *testing.T, s *jetstream.Store, opts ...natsjs.StreamPurgeOpt) {
		t.Helper()
		raw := stream(t, s.Conn(), s.Name())
		natstest.Retry(t, "purge", func(ctx context.Context) error { return raw.Purge(ctx, opts...) })
	}
	remove := func(t *testing.T, s *jetstream.Store, sequences ...uint64) {
		t.Helper()
		for _, seq := range sequences {
			natstest.Retry(t, "delete", func(ctx context.Context) error {
				err := wire.Delete(ctx, s.Conn(), s.Name(), seq)
				if _, got := wire.LeaderAt(ctx, s.Conn(), s.Name(), seq); errors.Is(got, wire.ErrNotFound) {
					return nil // Perhaps an earlier attempt has done it.
				}
				return err
			})
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, s *jetstream.Store)
		// want of the whole store, one of its aggregate a1, whose six commits stand at
		// the even sequences from 2 on; b's stand between.
		want, one string
		// history and scan are how many commits are read before the error, if any.
		history, scan int
		err, scanErr  error
	}{
		"a commit deleted": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); remove(t, s, 6) },
			want:   "missing 6, chain 8 a1", one: "chain 8 a1",
			history: 2, err: jetstream.ErrDamaged, scan: 4, scanErr: jetstream.ErrDamaged,
		},
		"several deleted": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); remove(t, s, 4, 6, 7, 8) },
			want:   "missing 4, missing 6-8, chain 9 b, chain 10 a1", one: "chain 10 a1",
			history: 1, err: jetstream.ErrDamaged, scan: 2, scanErr: jetstream.ErrDamaged,
		},
		"the last ones deleted": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); remove(t, s, 13, 12) },
			want:   "missing 12-13", history: 5, scan: 10,
		},
		"the genesis deleted": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); remove(t, s, 1) },
			want:   "missing 1", history: 6, scanErr: jetstream.ErrDamaged,
		},
		"a subject purged": {
			damage: func(t *testing.T, s *jetstream.Store) {
				t.Helper()
				subject, _ := s.Subject("account", "a1")
				purge(t, s, natsjs.WithPurgeSubject(subject))
			},
			want: "missing 2, missing 4, missing 6, missing 8, missing 10, missing 12",
			scan: 0, scanErr: jetstream.ErrDamaged,
		},
		"purged up to a commit": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); purge(t, s, natsjs.WithPurgeSequence(5)) },
			want:   "missing 1-4, chain 5 b, chain 6 a1", one: "chain 6 a1",
			err: jetstream.ErrDamaged, scanErr: jetstream.ErrDamaged,
		},
		"all purged": {
			damage: func(t *testing.T, s *jetstream.Store) { t.Helper(); purge(t, s) },
			want:   "missing 1-13",
		},
		"limits set": {
			damage: func(t *testing.T, s *jetstream.Store) {
				t.Helper()
				edit(t, s.Conn(), s.Name(), func(c *natsjs.StreamConfig) { c.MaxMsgsPerSubject = 2 })
			},
			want: "settings 0, missing 2-9, chain 10 a1, chain 11 b", one: "chain 10 a1",
			err: jetstream.ErrDamaged, scanErr: jetstream.ErrDamaged,
		},
	} {
		for replicas, nc := range map[int]*nats.Conn{1: one, 3: three} {
			t.Run(fmt.Sprintf("R%d %s", replicas, name), func(t *testing.T) {
				t.Parallel()
				s := editable(t, nc, replicas)
				var heads [2]jetstream.Head
				for i := range 12 {
					var err error
					if heads[i%2], err = s.Append(t.Context(), write([]string{"a1", "b"}[i%2], "", heads[i%2])); err != nil {
						t.Fatal(err)
					}
				}
				c.damage(t, s)
				// Any replica answers, and one may not have done it yet.
				natstest.Eventually(t, "the replicas agree", func() error {
					if got := found(verified(t, s, jetstream.Verification{})); got != c.want {
						return fmt.Errorf("found %q, want %q", got, c.want)
					}
					if got := found(verified(t, s, jetstream.Verification{Type: "account", ID: "a1"})); got != c.one {
						return fmt.Errorf("of a1 found %q, want %q", got, c.one)
					}
					if commits, err := history(t.Context(), s, "a1", jetstream.Range{}); !errors.Is(err, c.err) || len(commits) != c.history {
						return fmt.Errorf("history: %d commits, %w", len(commits), err)
					}
					commits, err := collect(s.Scan(t.Context(), "", jetstream.Range{}))
					if !errors.Is(err, c.scanErr) || len(commits) != c.scan {
						return fmt.Errorf("scan: %d commits, %w", len(commits), err)
					}
					return nil
				})
				// Who knew the aggregate writes on, or is told. The chain stays broken.
				err := told(t, func(ctx context.Context) error { return second(s.Append(ctx, write("a1", "", heads[0]))) })
				if err != nil && !errors.Is(err, jetstream.ErrStoreWentBack) {
					t.Error(err)
				}
			})
		}
	}
}

// TestStoresRefuseDeletions: what the tests above do takes a stream that was edited
// before; the store's own refuses it.
func TestStoresRefuseDeletions(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	appendN(t, s, "a1", 3)
	raw := stream(t, s.Conn(), s.Name())
	if err := raw.DeleteMsg(t.Context(), 2); err == nil {
		t.Error("a commit was deleted")
	}
	if err := raw.Purge(t.Context()); err == nil {
		t.Error("the store was purged")
	}
	wantFound(t, s, jetstream.Verification{}, "")
}

func TestVerificationsThatSayNothing(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	for want, v := range map[string]jetstream.Verification{
		"Verification.Type":   {ID: "a1"},
		"aggregate id":        {Type: "account"},
		"Verification.Sample": {Sample: -1},
		"is set beside":       {Sample: 5, Type: "account", ID: "a1"},
		"Verification.After":  {Sample: 5, After: 7},
	} {
		for d, err := range s.Verify(t.Context(), v) {
			if d != nil || !is[*jetstream.InvalidError](err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, %v", want, d, err)
			}
		}
	}
}
