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

// command sends commands to a service on another connection.
func command(ctx context.Context, e *env) (_ *result, err error) {
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
	client, err := aggregate.NewClient(nc, storeName, accountType, aggregate.ClientConfig{})
	if err != nil {
		return nil, err
	}
	execute := func(ctx context.Context, i int) error {
		_, err := client.Execute(ctx, aggregateID(i), someCredit)
		return err
	}
	request, reply, err := e.overhear(ctx, execute)
	if err != nil {
		return nil, err
	}
	msg, err := e.capture(aggregateID(0))
	if err != nil {
		return nil, err
	}
	raw := e.rawWriter(msg, writers)
	echo, err := nats.Connect(e.url)
	if err != nil {
		return nil, err
	}
	defer echo.Close()
	if _, err := echo.Subscribe("echo.*.*.*", func(m *nats.Msg) {
		reply.Subject = m.Reply
		_ = echo.PublishMsg(reply)
	}); err != nil {
		return nil, err
	}
	if err := echo.Flush(); err != nil {
		return nil, err
	}
	r, err := measure(ctx, e, e.plan(80, 120),
		contender{"ours", timed(turns(writers, execute))},
		contender{"raw", timed(turns(writers, func(ctx context.Context, i int) error {
			request.Subject = "echo.account.credit." + aggregateID(i)
			if _, err := e.rawNC.RequestMsgWithContext(ctx, request); err != nil {
				return err
			}
			return raw.publish(ctx, i)
		}))})
	if err == nil {
		r.notef("request %d bytes, reply %d bytes with headers", request.Size(), reply.Size())
	}
	return r, err
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
	if request, err = seen.NextMsg(5 * time.Second); err != nil {
		return nil, nil, err
	}
	for {
		m, err := answers.NextMsg(5 * time.Second)
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
