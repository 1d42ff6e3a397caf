#!/bin/sh
# The servers need: max_control_line: 65536
set -eu

# operator of bank: connect with the inbox prefix _INBOX_operator
nsc add user --account 'BANK' --name 'operator' \
  --allow-pub '$JS.API.CONSUMER.CREATE.bank.*,$JS.API.CONSUMER.CREATE.bank.*.>,$JS.API.CONSUMER.DELETE.bank.*,$JS.API.CONSUMER.MSG.NEXT.bank.*,$JS.API.DIRECT.GET.bank,$JS.API.DIRECT.GET.bank.>,$JS.API.INFO,$JS.API.STREAM.CREATE.bank,$JS.API.STREAM.INFO.KV_bank__deliveries,$JS.API.STREAM.INFO.KV_bank__followers,$JS.API.STREAM.INFO.KV_bank__state,$JS.API.STREAM.INFO.bank,$JS.API.STREAM.INFO.bank__timers,$JS.API.STREAM.MSG.GET.bank,$JS.API.STREAM.NAMES,$JS.API.STREAM.UPDATE.bank,bank.event._store.0.genesis' \
  --allow-sub '_INBOX_operator.>'

# command of bank order: connect with the inbox prefix _INBOX_orders
nsc add user --account 'BANK' --name 'orders' \
  --allow-pub '$JS.API.DIRECT.GET.KV_bank__state.$KV.bank__state.order.>,$JS.API.DIRECT.GET.bank,$JS.API.DIRECT.GET.bank.>,$JS.API.INFO,$JS.API.STREAM.CREATE.KV_bank__receipts,$JS.API.STREAM.CREATE.KV_bank__state,$JS.API.STREAM.CREATE.bank,$JS.API.STREAM.INFO.KV_bank__deliveries,$JS.API.STREAM.INFO.KV_bank__followers,$JS.API.STREAM.INFO.KV_bank__receipts,$JS.API.STREAM.INFO.KV_bank__state,$JS.API.STREAM.INFO.bank,$JS.API.STREAM.INFO.bank__timers,$JS.API.STREAM.MSG.GET.KV_bank__receipts,$JS.API.STREAM.MSG.GET.KV_bank__state,$JS.API.STREAM.MSG.GET.bank,$JS.API.STREAM.NAMES,$KV.bank__receipts.*,$KV.bank__state.order.>,bank.event._key.*.*,bank.event._store.*.keys,bank.event._store.0.genesis,bank.event.order.*.*' \
  --allow-sub '$SRV.*,$SRV.*.bank-order,$SRV.*.bank-order.*,_INBOX_orders.>,bank.command.order.>' \
  --allow-pub-response=1 --response-ttl 1m0s
