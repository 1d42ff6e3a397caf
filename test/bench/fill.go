package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// fill writes commits to the first aggregates of the store, in an order without
// a pattern, and returns how many each has. The aggregates' numbers of commits
// differ by one at most.
//
// One writer knows the sequence of every message before it is stored, so the
// commits are sent without waiting for each: copies of one that the store wrote,
// with the headers that belong to their places.
func (e *env) fill(ctx context.Context, commits, aggregates int) ([]int, error) {
	w, err := e.newWriter(ctx, aggregates, 1)
	if err != nil {
		return nil, err
	}
	if err := w.append(ctx, 0); err != nil {
		return nil, err
	}
	template, err := e.capture(w.ids[0])
	if err != nil {
		return nil, err
	}
	counts := make([]int, aggregates)
	heads := make([]jetstream.Head, aggregates)
	counts[0], heads[0] = 1, w.heads[0]
	subjects := e.subjects(storeName, aggregates)
	order := make([]int, 0, commits)
	for i := range commits {
		order = append(order, i%aggregates)
	}
	order = order[1:] // the template
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })

	next := heads[0].Sequence
	for n, i := range order {
		msg := place(template, subjects[i], &heads[i])
		next++
		heads[i].Sequence = next
		counts[i]++
		// An answer now and then bounds what is under way, and tells whether all
		// before it was stored.
		// Replicas refuse a commit while the one before it on its subject is under way.
		if e.row.replicas <= 1 && n%1000 != 999 && n != len(order)-1 {
			if err := e.rawNC.PublishMsg(msg); err != nil {
				return nil, err
			}
			continue
		}
		if err := e.stored(ctx, msg, next); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// place makes a copy of a commit that follows the head, and moves the head but
// for its sequence.
func place(template *nats.Msg, subject string, head *jetstream.Head) *nats.Msg {
	previous := head.CommitID
	if previous == "" {
		previous = "-"
	}
	h := maps.Clone(template.Header)
	head.CommitID = jetstream.NewID()
	head.Ordinal++
	head.Version++
	h["Rossby-Commit"] = []string{head.CommitID}
	h["Rossby-Chain"] = []string{fmt.Sprintf("%d %d %s", head.Ordinal, head.Version, previous)}
	h[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(head.Sequence, 10)}
	return &nats.Msg{Subject: subject, Header: h, Data: template.Data}
}

// stored publishes a message and checks its sequence.
func (e *env) stored(ctx context.Context, msg *nats.Msg, want uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answer, err := e.rawNC.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return err
	}
	var ack struct {
		Sequence uint64 `json:"seq"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return err
	}
	if ack.Sequence != want {
		return fmt.Errorf("fill: stored at %d instead of %d: %s", ack.Sequence, want, answer.Data)
	}
	return nil
}
