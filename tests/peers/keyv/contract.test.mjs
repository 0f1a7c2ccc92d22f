// Keyv's own suite for stores, on a store over cachesvc's HTTP API.
import * as vitest from 'vitest'
import Keyv from 'keyv'
import keyvTestSuite from '@keyv/test-suite'
import { Store } from './store.mjs'

vitest.vi.setConfig({ testTimeout: 20000 })
keyvTestSuite(vitest, Keyv, () => new Store(process.env.CACHESVC_URL))
