package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// commandSide is a repository with aggregates, and a raw writer of what its
// commands write.
func (e *env) commandSide(
	ctx context.Context, cache, aggregates int,
) (*aggregate.Repository[state], *rawWriter, error) {
	repo, err := e.repository(cache)
	if err != nil {
		return nil, nil, err
	}
	for i := range aggregates {
		if _, err := repo.Create(ctx, aggregateID(i), someOpen); err != nil {
			return nil, nil, err
		}
	}
	if _, err := repo.Execute(ctx, aggregateID(0), someCredit); err != nil {
		return nil, nil, err
	}
	msg, err := e.capture(aggregateID(0))
	if err != nil {
		return nil, nil, err
	}
	return repo, e.rawWriter(msg, aggregates), nil
}

// executeCached executes commands on aggregates that the repository has in its
// cache.
func executeCached(ctx context.Context, e *env) (*result, error) {
	repo, raw, err := e.commandSide(ctx, 0, writers)
	if err != nil {
		return nil, err
	}
	return measure(ctx, e, e.plan(80, 200),
		contender{"ours", timed(turns(writers, func(ctx context.Context, i int) error {
			_, err := repo.Execute(ctx, aggregateID(i), someCredit)
			return err
		}))},
		contender{"raw", timed(turns(writers, raw.publish))})
}

// executeUncached executes commands with a cache of one aggregate, so that each
// is loaded.
func executeUncached(ctx context.Context, e *env) (*result, error) {
	const aggregates = 1000
	repo, raw, err := e.commandSide(ctx, 1, aggregates)
	if err != nil {
		return nil, err
	}
	for i := range aggregates { // what the raw side gets must be there
		if err := raw.publish(ctx, i); err != nil {
			return nil, err
		}
	}
	order := rand.Perm(aggregates)
	return measure(ctx, e, e.plan(80, 150),
		contender{"ours", timed(turns(aggregates, func(ctx context.Context, i int) error {
			_, err := repo.Execute(ctx, aggregateID(order[i]), someCredit)
			return err
		}))},
		contender{"raw", timed(turns(aggregates, func(ctx context.Context, i int) error {
			i = order[i]
			msg, err := directGet(e.rawNC, rawName, raw.messages[i].Subject)
			if err != nil {
				return err
			}
			if raw.last[i], err = strconv.ParseUint(msg.Header.Get(nats.JSSequence), 10, 64); err != nil {
				return err
			}
			return raw.publish(ctx, i)
		}))})
}

// commanding are both sides of a command over request-reply, each for one of many
// aggregates. Two calls at once need two aggregates.
type commanding struct {
	ours, raw      func(ctx context.Context, i int) error
	request, reply *nats.Msg
}

// command sends commands to a service on another connection.
func command(ctx context.Context, e *env) (*result, error) {
	return e.commanding(ctx, func(ctx context.Context, c *commanding) (*result, error) {
		r, err := measure(ctx, e, e.plan(80, 120),
			contender{"ours", timed(turns(writers, c.ours))}, contender{"raw", timed(turns(writers, c.raw))})
		if err == nil {
			r.notef("request %d bytes, reply %d bytes with headers", c.request.Size(), c.reply.Size())
		}
		return r, err
	})
}

// commanding starts a service and an echo, and stops them.
func (e *env) commanding(
	ctx context.Context, run func(context.Context, *commanding) (*result, error),
) (_ *result, err error) {
	repo, _, err := e.commandSide(ctx, 0, writers)
	if err != nil {
		return nil, err
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{})
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- service.Run(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: e.url})
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	client, err := aggregate.NewClient(nc, storeName, accountType, aggregate.ClientConfig{Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	c := &commanding{ours: func(ctx context.Context, i int) error {
		_, err := client.Execute(ctx, aggregateID(i), someCredit)
		return err
	}}
	if c.request, c.reply, err = e.overhear(ctx, c.ours); err != nil {
		return nil, err
	}
	msg, err := e.capture(aggregateID(0))
	if err != nil {
		return nil, err
	}
	raw := e.rawWriter(msg, writers)
	echo, err := nats.Connect(e.url, nats.Timeout(time.Minute))
	if err != nil {
		return nil, err
	}
	defer echo.Close()
	if _, err := echo.Subscribe("echo.*.*.*", func(m *nats.Msg) {
		_ = echo.PublishMsg(&nats.Msg{Subject: m.Reply, Header: c.reply.Header, Data: c.reply.Data})
	}); err != nil {
		return nil, err
	}
	if err := echo.Flush(); err != nil {
		return nil, err
	}
	c.raw = func(ctx context.Context, i int) error {
		request := &nats.Msg{Subject: "echo.account.credit." + aggregateID(i), Header: c.request.Header, Data: c.request.Data}
		if _, err := e.rawNC.RequestMsgWithContext(ctx, request); err != nil {
			return err
		}
		return raw.publish(ctx, i)
	}
	return run(ctx, c)
}

// overhear returns the request and the reply of one command, for the raw side to
// send the same.
func (e *env) overhear(
	ctx context.Context, execute func(context.Context, int) error,
) (request, reply *nats.Msg, err error) {
	seen, err := e.rawNC.SubscribeSync(storeName + ".command.>")
	if err != nil {
		return nil, nil, err
	}
	answers, err := e.rawNC.SubscribeSync("_INBOX.>")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, seen.Unsubscribe(), answers.Unsubscribe()) }()
	if err := e.rawNC.Flush(); err != nil {
		return nil, nil, err
	}
	// The service may still be starting: the client sends again until it answers.
	if err := execute(ctx, 0); err != nil {
		return nil, nil, err
	}
	if request, err = seen.NextMsg(time.Minute); err != nil {
		return nil, nil, err
	}
	for {
		m, err := answers.NextMsg(time.Minute)
		if err != nil {
			return nil, nil, err
		}
		if m.Subject == request.Reply && len(m.Data) > 0 {
			reply = m
			break
		}
	}
	request = &nats.Msg{Header: request.Header, Data: request.Data}
	return request, &nats.Msg{Header: reply.Header, Data: reply.Data}, nil
}
