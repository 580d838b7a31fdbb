-- What Rspamd thinks of messages in `make scanners`.
rspamd_config.OWN_PILLS = {
  score = 20.0,
  callback = function(task)
    return (task:get_header('Subject') or ''):find('pills') ~= nil
  end,
}

rspamd_config.OWN_OFFER = {
  score = 7.0,
  callback = function(task)
    return (task:get_header('Subject') or ''):find('offer') ~= nil
  end,
}

rspamd_config.OWN_LATER = {
  score = 0.0,
  callback = function(task)
    if (task:get_header('Subject') or ''):find('later') then
      task:set_pre_result('soft reject', 'come back tomorrow')
    end
    return false
  end,
}

-- Who submits, by what the relay tells.
rspamd_config.OWN_ENVELOPE = {
  score = 0.0,
  callback = function(task)
    if (task:get_header('Subject') or ''):find('envelope') then
      local from, to = task:get_from('smtp'), task:get_recipients('smtp')
      task:set_pre_result('reject', string.format('ip=%s helo=%s from=%s to=%d id=%s', task:get_ip(), task:get_helo(),
        from and from[1] and from[1].addr or '', to and #to or 0, task:get_queue_id() ~= 'undef' and 'yes' or 'no'))
    end
    return false
  end,
}
