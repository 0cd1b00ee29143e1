package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// mirrorPatience is how long a mirror may take to begin an answer. Preflight waits that long.
const mirrorPatience = 5 * time.Second

// reach asks whether a URL answers, as an installer would: directly, or through a proxy.
func reach(ctx context.Context, target, proxy string) error {
	transport := &http.Transport{ResponseHeaderTimeout: mirrorPatience, DisableKeepAlives: true}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			return fmt.Errorf("read the proxy's URL: %w", err)
		}
		transport.Proxy = http.ProxyURL(u)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*mirrorPatience) // connecting included
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, target, nil)
	if err != nil {
		return fmt.Errorf("read the URL: %w", err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return lane.Errorf(lane.Unavailable, "%s", err.(*url.Error).Err)
	}
	_ = resp.Body.Close() // of an answer to HEAD there is none
	if resp.StatusCode == http.StatusForbidden && strings.HasSuffix(target, "/") {
		return nil // a directory that is there, and is not listed
	}
	if resp.StatusCode != http.StatusOK {
		return lane.Errorf(lane.NotFound, "it answers %s", resp.Status)
	}
	return nil
}
