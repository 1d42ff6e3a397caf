package follow_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
)

var errOther = errors.New("another trouble")

func isOther(err error) bool { return errors.Is(err, errOther) }

// AC-S3, AC-S4: the first policy whose class the error is of decides; what none
// is for is tried without an end.
func TestDecide(t *testing.T) {
	t.Parallel()
	policies := []follow.Policy{
		{Is: isOther, Attempts: 3, Then: follow.SkipEvent, MinBackoff: time.Second, MaxBackoff: time.Second},
		{Is: func(err error) bool { return errors.Is(err, errTest) }, For: time.Hour},
	}
	decide := func(f follow.Failure) follow.Verdict {
		return follow.Decide(f, policies, time.Millisecond, time.Minute)
	}
	for _, c := range []struct {
		name  string
		f     follow.Failure
		want  follow.Action
		least time.Duration
		most  time.Duration
	}{
		{"first attempt", follow.Failure{Attempt: 1, Err: errOther}, follow.Retry, time.Second, time.Second},
		{"wrapped", follow.Failure{Attempt: 2, Err: fmt.Errorf("x: %w", errOther)}, follow.Retry, time.Second, time.Second},
		{"last attempt", follow.Failure{Attempt: 3, Err: errOther}, follow.SkipEvent, 0, 0},
		{"within the time", follow.Failure{Attempt: 99, Since: time.Now(), Err: errTest}, follow.Retry, time.Millisecond, time.Minute},
		{"never failed before", follow.Failure{Attempt: 1, Err: errTest}, follow.Retry, time.Millisecond, 3 * time.Millisecond},
		{"over the time", follow.Failure{Attempt: 9, Since: time.Now().Add(-2 * time.Hour), Err: errTest}, follow.Park, 0, 0},
		{"no policy", follow.Failure{Attempt: 1_000_000, Since: time.Unix(0, 0), Err: errors.New("x")}, follow.Retry, time.Millisecond, time.Minute},
		{"told when", follow.Failure{Attempt: 1, Err: follow.RetryAfter(errors.New("x"), time.Hour)}, follow.Retry, time.Hour, 67 * time.Minute},
		{"told when, of a class", follow.Failure{Attempt: 1, Err: follow.RetryAfter(errOther, time.Hour)}, follow.Retry, time.Hour, 67 * time.Minute},
	} {
		if got := decide(c.f); got.Action != c.want || got.After < c.least || got.After > c.most {
			t.Errorf("%s: %+v, want %v after %v to %v", c.name, got, c.want, c.least, c.most)
		}
	}
	if err := follow.RetryAfter(nil, time.Second); err != nil {
		t.Errorf("RetryAfter of no error: %v", err)
	}
	if got := follow.RetryAfter(errTest, -time.Second).Error(); !strings.Contains(got, "0s") {
		t.Errorf("a negative time: %q", got)
	}
}

func TestValidatePolicies(t *testing.T) {
	t.Parallel()
	if err := follow.ValidatePolicies([]follow.Policy{{}, {Attempts: 3, For: time.Hour, Then: follow.Stop}}); err != nil {
		t.Errorf("good policies: %v", err)
	}
	err := follow.ValidatePolicies([]follow.Policy{
		{}, {Attempts: -1, For: -1, MinBackoff: 2, MaxBackoff: 1, Then: follow.Postpone}, {MinBackoff: -1, Then: 99},
	})
	for _, want := range []string{
		"Policies[1]", "Attempts -1", "For -1ns", "MinBackoff 2ns is above", "Then postpone", "Policies[2]", "MinBackoff -1ns is negative", "Then Action(99)",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

// What was postponed was not tried: its attempts do not grow, its place is kept
// over a change of owner, and the status says why it waits.
func TestPostponeVerdict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var open atomic.Bool
	var attempts atomic.Int64
	j.fail = func(d follow.Delivery) error {
		attempts.Store(max(attempts.Load(), int64(d.Attempt)))
		if d.Subject == "t.1" && !open.Load() {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict {
		return follow.Verdict{Action: follow.Postpone, After: 5 * time.Millisecond}
	}
	b.publishLanes(3, 20)
	i := start(t, cfg)
	until(t, "the others are done, one waits", func() bool {
		s := i.Status()
		return j.count() == 40 && len(s.Blocked) == 1 && s.Blocked[0].Error == errTest.Error() && s.Blocked[0].Attempts == 0
	})
	i.stop(t)
	i = start(t, cfg).active(t)
	open.Store(true)
	i.caughtUp(t, 60)
	if n := attempts.Load(); n != 1 {
		t.Errorf("%d attempts were counted", n)
	}
	j.ordered()
}

// The first failure's time outlives the owner, so a policy's end does not begin
// anew with each deploy.
func TestFailureSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	j.fail = func(follow.Delivery) error { return errTest }
	failures := make(chan follow.Failure, 1024)
	cfg := b.config(j)
	cfg.Decide = func(f follow.Failure) follow.Verdict {
		select {
		case failures <- f:
		default:
		}
		return follow.Verdict{After: 10 * time.Millisecond}
	}
	b.publishLanes(1, 1)
	i := start(t, cfg)
	if f := <-failures; f.Attempt != 1 || !f.Since.IsZero() {
		t.Errorf("the first failure: attempt %d since %v", f.Attempt, f.Since)
	}
	second := <-failures
	if second.Attempt != 2 || second.Since.IsZero() {
		t.Errorf("the second: attempt %d since %v", second.Attempt, second.Since)
	}
	i.stop(t)
	for len(failures) > 0 {
		<-failures
	}
	start(t, cfg).active(t)
	if f := <-failures; f.Attempt < 3 || f.Since.UnixMilli() != second.Since.UnixMilli() {
		t.Errorf("after a restart: attempt %d since %v, was %v", f.Attempt, f.Since, second.Since)
	}
}
