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
	f, err := e.newFiller(ctx, aggregates)
	if err != nil {
		return nil, err
	}
	return f.counts, f.add(ctx, commits, 0, aggregates)
}

// filler fills a store bit by bit. Nobody else may write.
type filler struct {
	env      *env
	template *nats.Msg
	subjects []string
	heads    []jetstream.Head
	// counts are the commits of each aggregate.
	counts []int
	next   uint64
}

// newFiller stores one commit, which the others are copies of.
func (e *env) newFiller(ctx context.Context, aggregates int) (*filler, error) {
	w, err := e.newWriter(ctx, aggregates, 1)
	if err != nil {
		return nil, err
	}
	if err := w.append(ctx, 0); err != nil {
		return nil, err
	}
	f := &filler{
		env: e, subjects: e.subjects(storeName, aggregates),
		heads: make([]jetstream.Head, aggregates), counts: make([]int, aggregates),
	}
	f.counts[0], f.heads[0], f.next = 1, w.heads[0], w.heads[0].Sequence
	f.template, err = e.capture(w.ids[0])
	return f, err
}

// add lets the aggregates from one to before another have so many commits
// together. They have none yet but for the first one's first.
func (f *filler) add(ctx context.Context, commits, from, before int) error {
	order := make([]int, 0, commits)
	for i := range commits {
		order = append(order, from+i%(before-from))
	}
	if from == 0 {
		order = order[1:] // the template
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for n, i := range order {
		msg := place(f.template, f.subjects[i], &f.heads[i])
		f.next++
		f.heads[i].Sequence = f.next
		f.counts[i]++
		// An answer now and then bounds what is under way, and tells whether all
		// before it was stored.
		// Replicas refuse a commit while the one before it on its subject is under way.
		if f.env.row.replicas <= 1 && n%1000 != 999 && n != len(order)-1 {
			if err := f.env.rawNC.PublishMsg(msg); err != nil {
				return err
			}
			continue
		}
		if err := f.env.stored(ctx, msg, f.next); err != nil {
			return err
		}
	}
	return nil
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
