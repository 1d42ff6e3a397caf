package acceptance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// oneTrace follows a transfer through every module, in one process or in all of
// them: every span is of the trace that the request named. Spans are sent once, and who
// is not there yet does not send any, so another transfer may have to be followed.
func oneTrace(t *testing.T, c *client, processes int) {
	t.Helper()
	from, to := c.open(t, firstBalance), c.open(t, secondBalance)
	eventually(t.Context(), t, "a whole trace", func() error {
		trace, err := traced(t, c, from, to)
		if err != nil {
			return err
		}
		const looks = 200
		for range looks {
			if err = wholeTrace(t, c, trace, processes); err == nil {
				return nil
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-t.Context().Done():
				return t.Context().Err()
			}
		}
		return err
	})
}

// traced makes a transfer whose request names a trace.
func traced(t *testing.T, c *client, from, to string) (string, error) {
	t.Helper()
	trace := fmt.Sprintf("%016x%016x", time.Now().UnixNano(), unique.Add(1))
	body, err := json.Marshal(map[string]any{"fromAccountId": from, "toAccountId": to, "cents": transferAmount})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/api/transfers", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("%s %s", resp.Status, answer)
	}
	return trace, err
}

// wholeTrace says what a trace lacks.
func wholeTrace(t *testing.T, c *client, trace string, processes int) error {
	t.Helper()
	type span struct{ TraceID, SpanID, ParentID, Name, Process string }
	spans := call[[]span](t, c, http.StatusOK, http.MethodGet, "/api/traces/"+trace, nil)
	ids, names, in := map[string]bool{"00f067aa0ba902b7": true}, make([]string, 0, len(spans)), map[string]bool{}
	for _, s := range spans {
		ids[s.SpanID] = true
		names = append(names, s.Name)
		in[s.Process] = true
	}
	for _, s := range spans {
		if s.TraceID != trace || !ids[s.ParentID] {
			return fmt.Errorf("%s is below %q, which is not there", s.Name, s.ParentID)
		}
	}
	for _, want := range []string{
		"execute transfer create", "commit transfer", "react money-transfer created", "execute account debit",
		"commit account", "execute account credit", "project transfers", "project accounts", "project ledger",
		"deliver notifications ",
	} {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, want) }) {
			return fmt.Errorf("%q is not among %q", want, names)
		}
	}
	if len(in) < processes {
		return fmt.Errorf("it was in %d processes, want %d", len(in), processes)
	}
	return nil
}

// metricsAnswer wants what Prometheus scrapes, of the process that serves HTTP.
func metricsAnswer(t *testing.T, c *client) {
	eventually(t.Context(), t, "the metrics", func() error {
		a, err := c.do(t.Context(), http.MethodGet, "/metrics", "", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		for _, want := range []string{`rossby_store_up{`, `rossby_connection_up{`, `rossby_module_ready{`, `rossby_module_name="api"`} {
			if err == nil && !bytes.Contains(a.body, []byte(want)) {
				err = fmt.Errorf("%s is not in\n%s", want, a.body)
			}
		}
		return err
	})
}
