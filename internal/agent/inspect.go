package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"bootlane/internal/lane"
)

// inspectedEnd is how the server had an inspection end.
type inspectedEnd struct{ lane.InspectReply }

func (e *inspectedEnd) Error() string { return "the machine was looked at: " + e.Then }

func (e *inspectedEnd) what() string {
	if e.Then == lane.ThenReboot {
		return "no disk was opened; rebooting"
	}
	return "no disk was opened; powering off"
}

// How long an agent waits between two words at the least and at the most, whatever it is told.
const (
	leastWait = 5 * time.Second
	mostWait  = 10 * time.Minute
)

// inspect tells the server what the machine is made of, again and again while it is told to
// wait. It opens no disk: it reads what the kernel shows of them. It returns an
// *inspectedEnd, or what went wrong.
func (a *agent) inspect(ctx context.Context) error {
	a.log.Step("server: %s; this agent only looks, and opens no disk", a.params.URL.Host)
	for last := ""; ; {
		reply, err := a.api.inspected(ctx, a.hw)
		var no *refusal
		switch {
		case errors.As(err, &no) && last != "": // the server knows this ticket no more: a new boot gets another
			a.log.Step("%v", err)
			return &inspectedEnd{lane.InspectReply{Then: lane.ThenReboot}}
		case err != nil:
			return fmt.Errorf("tell what the machine is made of: %w", err)
		}
		if said := reply.Then + " " + reply.Detail; said != last {
			a.log.Step("the server says %s: %s", lane.Clean(reply.Then, 40), lane.Clean(reply.Detail, 300))
			last = said
		}
		if reply.Then != lane.ThenWait {
			return &inspectedEnd{reply}
		}
		again := min(max(time.Duration(reply.Again)*time.Second, leastWait), mostWait)
		if err := a.cfg.Sleep(ctx, again); err != nil {
			return err
		}
		fresh, err := a.cfg.Machine.Hardware()
		if err != nil {
			return fmt.Errorf("read the hardware again: %w", err)
		}
		fresh.BootMAC = a.hw.BootMAC
		a.hw = fresh
	}
}

// inspected posts what the machine is made of.
func (c *client) inspected(ctx context.Context, hw lane.Hardware) (lane.InspectReply, error) {
	body, err := json.Marshal(hw)
	if err != nil {
		return lane.InspectReply{}, fmt.Errorf("encode the hardware: %w", err)
	}
	var reply lane.InspectReply
	err = c.retry(ctx, "report", serverPatient, func() error {
		text, err := c.answer(ctx, "report", body)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &reply); err != nil {
			return fmt.Errorf("read the answer to the report: %w", err)
		}
		return nil
	})
	return reply, err
}
