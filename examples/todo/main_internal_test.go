package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

var printed = regexp.MustCompile(`^  curl (?:-X (POST) |-N )?(http://\S+)(?: -d '(.*?)')?(?: -H '(.*?): (.*?)')?$`)

// TestRun does what the program says one should try, word for word.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, out, "127.0.0.1:0", "")
		ended <- errors.Join(err, out.Close())
	}()
	var got []string
	for scan := bufio.NewScanner(lines); scan.Scan(); {
		if strings.HasPrefix(scan.Text(), "What happens") {
			break
		}
		line := printed.FindStringSubmatch(scan.Text())
		if line == nil {
			continue
		}
		req, err := http.NewRequestWithContext(ctx, line[1], line[2], strings.NewReader(line[3]))
		if err != nil {
			t.Fatal(err)
		}
		if line[4] != "" {
			req.Header.Set(line[4], line[5])
		}
		got = append(got, try(t, req))
	}
	want := []string{"201", "200", `200 {"title":"Buy milk","done":true}`, "202", "200 text/event-stream"}
	if !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func try(t *testing.T, req *http.Request) string {
	t.Helper()
	var answer string
	natstest.Eventually(t, req.URL.Path, func() error {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if answer = resp.Status[:3]; resp.StatusCode >= http.StatusInternalServerError {
			return errors.New(resp.Status) // nobody answered in time: people try again
		}
		if kind := resp.Header.Get("Content-Type"); kind == "text/event-stream" {
			answer += " " + kind
			return nil
		}
		data, err := io.ReadAll(resp.Body)
		if err == nil && req.Method == http.MethodGet {
			if answer += " " + strings.TrimSpace(string(data)); !strings.Contains(answer, `"done":true`) {
				return errors.New(answer) // the view is not there yet
			}
		}
		return err
	})
	return answer
}
