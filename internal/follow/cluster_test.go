package follow_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/natstest"
)

// cluster starts three servers in this process and returns their addresses.
func cluster(tb testing.TB) string {
	tb.Helper()
	return strings.Join(natstest.RunCluster(tb).URLs(), ",")
}

func TestReplicatedWithStepDowns(t *testing.T) {
	t.Parallel()
	urls := cluster(t)
	b := newBench(t, urls, 3)
	j := newJournal(t)
	j.fail = func(d follow.Delivery) error {
		if d.Sequence%37 == 0 && d.Attempt < 3 {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.TTL = leaseShort
	first := start(t, cfg).active(t)
	cfg.Conn = b.connect()
	second := start(t, cfg)
	const lanes, rounds = 20, 10
	steps := []string{
		"CONSUMER.LEADER.STEPDOWN." + b.stream + ".f",
		"STREAM.LEADER.STEPDOWN.KV_" + b.bucket,
		"CONSUMER.LEADER.STEPDOWN." + b.stream + ".f",
		"STREAM.LEADER.STEPDOWN." + b.stream,
	}
	head := 0
	for n := range 8 {
		b.publishMany(lanes, rounds)
		step := "$JS.API." + steps[n%len(steps)]
		until(t, step, func() bool {
			msg, err := b.nc.Request(step, nil, 2*time.Second)
			return err == nil && strings.Contains(string(msg.Data), `"success":true`)
		})
		b.publishMany(lanes, rounds)
		head += 2 * lanes * rounds
	}
	until(t, "all is done", func() bool { return j.count() == head })
	t.Logf("repeated %d of %d, epochs %d and %d", j.repeated(), head, first.Status().Epoch, second.Status().Epoch)
	// On a busy machine an owner may not renew in time, and another takes over.
	taken := max(first.Status().Epoch, second.Status().Epoch, 2) - 1
	if most := int(taken) * follow.MaxUnrecordedDefault; j.repeated() > most {
		t.Errorf("repeated %d, with %d owners after the first at most %d", j.repeated(), taken, most)
	}
	j.ordered()
	until(t, "the server knows", func() bool {
		s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
		return err == nil && s.CaughtUp && s.Position >= uint64(head)
	})
}

// TestControlReplicated: what was asked of an owner holds on three servers, whose
// record and stream change leaders around it.
func TestControlReplicated(t *testing.T) {
	t.Parallel()
	urls := cluster(t)
	b := newBench(t, urls, 3)
	j := newJournal(t)
	const bad = 4
	j.fail = func(d follow.Delivery) error {
		if d.Sequence == bad && !d.Replay {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.TTL = leaseShort
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Park} }
	stepDown := func(stream string) {
		t.Helper()
		until(t, "another leader of "+stream, func() bool {
			msg, err := b.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 2*time.Second)
			return err == nil && strings.Contains(string(msg.Data), `"success":true`)
		})
	}
	i := start(t, cfg)
	// ask repeats what may not have been recorded, until it is, or was before.
	ask := func(what string, do func() error, before ...error) {
		t.Helper()
		stepDown("KV_" + b.bucket)
		stepDown(b.stream)
		until(t, what, func() bool {
			err := do()
			return err == nil || slices.ContainsFunc(before, func(e error) bool { return errors.Is(err, e) })
		})
	}
	anew := func() {
		t.Helper()
		i.stop(t)
		i = start(t, cfg)
	}

	b.publishLanes(2, 5)
	until(t, "it is parked", func() bool { return j.count() == 6 && len(i.Status().Blocked) == 1 })
	ask("pause", func() error { return i.Pause(t.Context(), follow.Pause{By: "ada"}) })
	anew()
	b.publishLanes(2, 5)
	lane := ""
	until(t, "the events wait", func() bool {
		s := i.Status()
		if len(s.Blocked) == 1 {
			lane = s.Blocked[0].Subject
		}
		return s.State == follow.StatePaused && s.Unfinished == 2 && lane != ""
	})
	if j.count() != 6 {
		t.Errorf("%d done in a pause", j.count())
	}
	ask("discard", func() error { return i.Discard(t.Context(), lane, bad, true) }, follow.ErrNoLane, follow.ErrOtherEvent)
	anew()
	until(t, "the owner knows", func() bool { return i.Status().State == follow.StatePaused })
	if l := i.Status().Blocked; len(l) > 0 {
		t.Errorf("still blocked: %+v", l)
	}
	ask("unpause", func() error { return i.Unpause(t.Context()) })
	i.caughtUp(t, 20)
	if j.count() != 19 {
		t.Errorf("%d done", j.count())
	}
	j.ordered()
	ask("replay", func() error { return i.Replay(t.Context(), follow.Replay{From: 1, To: 5}) }, follow.ErrReplaying)
	until(t, "the replay ends", func() bool {
		s := i.Status()
		return j.count() == 20 && s.State == follow.StateActive && s.Replay == nil && s.CaughtUp && s.Position >= 20
	})
}
