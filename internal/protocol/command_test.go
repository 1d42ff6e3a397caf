package protocol_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/protocol"
)

func TestTriggers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC)
	for _, want := range []protocol.Trigger{
		{Subscriber: "s", EventID: "e.0", Step: "debit", Position: "abc-1z", Time: at},
		{Subscriber: "s", EventID: "e.0", Step: "debit"},
	} {
		got, err := protocol.ParseTrigger(want.String())
		if err != nil || got != want {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	for _, text := range []string{
		"", "s", "s e p - ", "s e p - x", "s e p  1", " e p - 1", "s  p - 1", "s e  - 1", "s e p - 1 more", "s e p - 9223372036854775808",
	} {
		if got, err := protocol.ParseTrigger(text); err == nil || !strings.Contains(err.Error(), protocol.HeaderTrigger) {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
}

// What is left travels, not the time of day: clocks differ.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	if text := protocol.Deadline(t.Context()); text != "" {
		t.Error(text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	left, err := time.ParseDuration(protocol.Deadline(ctx))
	if err != nil || left > time.Hour || left < 50*time.Minute {
		t.Error(left, err)
	}
	over, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	if text := protocol.Deadline(over); text != "1ms" {
		t.Error(text)
	}
	for header, want := range map[string]time.Duration{
		"": time.Minute, "1000ms": time.Second, "1.5s": 1500 * time.Millisecond, "2h": time.Minute, "60001ms": time.Minute,
	} {
		if got, err := protocol.Timeout(header, time.Minute); err != nil || got != want {
			t.Errorf("%q: %v %v", header, got, err)
		}
	}
	for _, header := range []string{"0", "0s", "-1s", "1.5", "1000", "soon", "9223372036854775808ms"} {
		if _, err := protocol.Timeout(header, time.Minute); err == nil {
			t.Errorf("%q was taken", header)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[protocol.Kind]string{
		protocol.KindInvalid: "400", protocol.KindNotFound: "404", protocol.KindExists: "409", protocol.KindConflict: "409",
		protocol.KindRejected: "422", protocol.KindBusy: "429", protocol.KindInternal: "500", protocol.KindUnavailable: "503",
		protocol.KindUnknown: "504", protocol.KindStale: "504", "of the future": "500",
	} {
		if kind.Code() != want {
			t.Errorf("%s: %s", kind, kind.Code())
		}
	}
	if s := protocol.CommandSubject("bank", "account", "debit", "a1"); s != "bank.command.account.debit.a1" {
		t.Error(s)
	}
}
