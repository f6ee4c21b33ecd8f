// Package parser evaluates arithmetic: + - * / and parentheses over float64.
package parser

import (
	"fmt"
	"strconv"
)

// Eval returns the value of an expression.
func Eval(s string) (float64, error) {
	p := &parser{src: s}
	v, err := p.sum()
	if err != nil {
		return 0, err
	}
	if c := p.peek(); c != 0 {
		return 0, fmt.Errorf("column %d: unexpected %q", p.pos+1, c)
	}
	return v, nil
}

type parser struct {
	src string
	pos int
}

// peek skips blanks and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	for p.pos < len(p.src) && p.src[p.pos] == ' ' {
		p.pos++
	}
	if p.pos == len(p.src) {
		return 0
	}
	return p.src[p.pos]
}

func (p *parser) sum() (float64, error) {
	v, err := p.product()
	for err == nil && (p.peek() == '+' || p.peek() == '-') {
		op := p.src[p.pos]
		p.pos++
		var w float64
		if w, err = p.product(); op == '+' {
			v += w
		} else {
			v -= w
		}
	}
	return v, err
}

func (p *parser) product() (float64, error) {
	v, err := p.atom()
	for err == nil && (p.peek() == '*' || p.peek() == '/') {
		op := p.src[p.pos]
		p.pos++
		var w float64
		if w, err = p.atom(); op == '*' {
			v *= w
		} else {
			v /= w
		}
	}
	return v, err
}

func (p *parser) atom() (float64, error) {
	switch c := p.peek(); {
	case c == '(':
		p.pos++
		v, err := p.sum()
		if err != nil {
			return 0, err
		}
		if p.peek() != ')' {
			return 0, fmt.Errorf("column %d: missing )", p.pos+1)
		}
		p.pos++
		return v, nil
	case c == '-':
		p.pos++
		v, err := p.atom()
		return -v, err
	}
	start := p.pos
	for p.pos < len(p.src) && (p.src[p.pos] >= '0' && p.src[p.pos] <= '9' || p.src[p.pos] == '.') {
		p.pos++
	}
	v, err := strconv.ParseFloat(p.src[start:p.pos], 64)
	if err != nil {
		return 0, fmt.Errorf("column %d: want a number", start+1)
	}
	return v, nil
}
